//! A folder with a tiny model and a few texts, and the command run in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Nothing that is run here takes a second; what takes as long as this hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Where a command's standard error goes.
const SAID: &str = "stderr.txt";

/// The folder: `model/` and texts as the command's own tests have them, and what is made of them.
pub struct Workbench {
    folder: PathBuf,
    program: PathBuf,
}

/// How a command ended.
pub struct Ended {
    /// `None` where it had to be killed: it hung.
    pub status: Option<ExitStatus>,
    /// Its standard error.
    pub said: String,
}

impl Ended {
    /// Whether it says of itself that it did what it was asked for.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// What must not be, whatever happens to a file.
    pub fn problem(&self) -> Option<String> {
        let said = self.said.trim();
        match self.status {
            None => Some(format!("it hangs: {said}")),
            _ if said.contains("panicked") => Some(format!("it panicked: {said}")),
            Some(status) if status.code().is_none_or(|code| code > 1) => {
                Some(format!("it ended with {status}: {said}"))
            }
            Some(status) if !status.success() && !said.contains("error:") => {
                Some(format!("it failed and does not say why: {said}"))
            }
            _ => None,
        }
    }
}

impl Workbench {
    /// Builds the command, and makes the folder anew.
    pub fn new(workspace: &Workspace, profile: &str) -> Result<Self> {
        let build = ["build", "--package", "peft-cli", "--profile", profile];
        workspace.cargo().args(build).run()?;
        // The one profile whose folder has another name.
        let built = workspace.target.join(if profile == "dev" { "debug" } else { profile });
        let program = format!("peft{}", std::env::consts::EXE_SUFFIX);
        let folder = workspace.target.join("faults");
        // A copy: it stays the same where something else is built meanwhile.
        let bench = Self { program: folder.join("bin").join(&program), folder };
        let (shell, model) = (&workspace.shell, bench.path("model"));
        shell.remove_path(&bench.folder)?;
        shell.create_dir(bench.path("bin"))?;
        shell.copy_file(built.join(&program), &bench.program)?;
        shell.create_dir(&model)?;
        let fixture = workspace.root.join("tests/fixtures/bases/bert");
        shell.copy_file(fixture.join("model.safetensors"), &model)?;
        // With dropout, a step depends on the random state.
        let config = shell.read_file(fixture.join("config.json"))?;
        shell.write_file(
            model.join("config.json"),
            config.replace("_prob\": 0.0", "_prob\": 0.1"),
        )?;
        let command = workspace.root.join("crates/peft-cli");
        shell.copy_file(command.join("tests/cli/vocab.txt"), &model)?;
        for (name, rows) in [("train.tsv", 48), ("test.tsv", 24)] {
            let text = shell.read_file(command.join("data/support-intents").join(name))?;
            let first: Vec<&str> = text.lines().take(rows + 1).collect();
            shell.write_file(bench.path(name), first.join("\n") + "\n")?;
        }
        Ok(bench)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the folder.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("{} cannot be removed", self.folder.display()))
    }

    /// Puts what a command left out of the way of the next one.
    pub fn keep(&self, name: &str, number: usize) -> Result<()> {
        let (from, to) = (self.path(name), self.path(&format!("problem-{number}")));
        if from.exists() {
            std::fs::rename(&from, to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// `peft ARGUMENTS` in the folder; arguments are separated by spaces.
    pub fn peft(&self, arguments: &str) -> Command {
        self.under(&[], arguments)
    }

    /// The same under another program: `strace -f`, say.
    pub fn under(&self, program: &[&str], arguments: &str) -> Command {
        let words = program.iter().map(AsRef::as_ref).chain([self.program.as_os_str()]);
        let words: Vec<_> = words.chain(arguments.split_whitespace().map(AsRef::as_ref)).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.folder);
        // Nothing may be fetched, nor found in the cache of whoever runs this.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("no-cache"));
        command
    }

    /// Starts a command.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        let said = self.path(SAID);
        let said = File::create(&said).with_context(|| said.display().to_string())?;
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn();
        started.with_context(|| format!("{} cannot be run", command.get_program().display()))
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> Result<Ended> {
        let mut child = self.start(command)?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if started.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let said = std::fs::read(self.path(SAID))?;
        Ok(Ended { status, said: String::from_utf8_lossy(&said).into_owned() })
    }

    /// Runs a command that nothing happens to, which must succeed.
    pub fn succeed(&self, arguments: &str) -> Result<()> {
        let ended = self.run(&mut self.peft(arguments))?;
        ensure!(ended.is_success(), "peft {arguments}: {}", ended.said);
        Ok(())
    }
}
