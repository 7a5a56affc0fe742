//! The commands of which calls fail.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::power;
use super::trace::{self, Call, Kind, WATCHED, stable};
use super::workbench::{Ended, Workbench};

/// What every command here writes.
pub const OUT: &str = "run";
/// What strace writes.
const TRACE: &str = "trace.txt";
/// What is left of a run that was killed half-way.
const CUT: &str = "train-cut";
/// How often a command is run undisturbed. Burn draws the names of parameters by chance, and they decide
/// how many writes a file takes: what happens in most runs is what can be hit.
const RUNS: usize = 5;
/// How often it is tried to hit a call.
pub const TRIES: usize = 10;

/// A command, and what is done with what it leaves.
pub struct Subject {
    /// What it is called; what it wrote undisturbed stays under this name.
    pub name: &'static str,
    arguments: &'static str,
    /// What is there when it begins, under its name.
    begins: Option<&'static str>,
    /// What ends what it began.
    pub again: &'static str,
    /// What accepts its directory; of a run, each adapter in it is asked for.
    pub accepts: Option<&'static str>,
}

macro_rules! train {
    ($method:literal) => {
        concat!(
            "train --model model --train train.tsv --valid test.tsv --test test.tsv --max-length 24 \
             --epochs 2 --batch-size 16 --lr 1e-2 --checkpoint-every 2 --json --out run --method ",
            $method
        )
    };
    ($method:literal, resume) => {
        concat!(train!($method), " --resume")
    };
}

const fn run(name: &'static str, arguments: &'static str, again: &'static str) -> Subject {
    Subject { name, arguments, begins: None, again, accepts: None }
}

/// One that writes a new directory, which is written anew where that failed.
const fn once(name: &'static str, arguments: &'static str, accepts: &'static str) -> Subject {
    Subject { name, arguments, begins: None, again: arguments, accepts: Some(accepts) }
}

/// In an order in which each has what it needs of those before.
pub const SUBJECTS: [Subject; 7] = [
    run("train", train!("lora"), train!("lora", resume)),
    // It has a file more than others: what it started from.
    run("train-pissa", train!("pissa"), train!("pissa", resume)),
    Subject {
        begins: Some(CUT),
        ..run("train-resumed", train!("lora", resume), train!("lora", resume))
    },
    once(
        "merge",
        "merge --model model --adapter train --out run",
        "check --model run --adapter train",
    ),
    once(
        "unmerge",
        "unmerge --model merge --adapter train --out run",
        "check --model run --adapter train",
    ),
    once(
        "convert-adapters",
        "convert --model model --adapter train --to adapters --out run",
        "check --model model --adapter run",
    ),
    once(
        "convert-peft",
        "convert --model model --adapter convert-adapters --to peft --out run",
        "check --model model --adapter run",
    ),
];

impl Subject {
    /// Runs the command to whose calls nothing happens: those that can fail, and what a loss of
    /// power could take.
    pub fn undisturbed(&self, bench: &Workbench) -> Result<(Vec<Call>, Vec<String>)> {
        if self.begins.is_some() {
            cut(bench)?;
        }
        let out = bench.path(OUT);
        // The name of the directory itself is written into the one above.
        let is_own = |call: &Call| {
            let is_sync = call.kind == Kind::Sync;
            call.paths
                .iter()
                .any(|path| path.starts_with(&out) || is_sync && path == bench.folder())
        };
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let (ended, calls) = self.traced(bench, &[])?;
            ensure!(ended.is_success(), "{}: {}", self.name, ended.said);
            let changes = calls.into_iter().filter(|call| call.kind != Kind::Read && is_own(call));
            runs.push(changes.collect::<Vec<_>>());
        }
        std::fs::rename(&out, bench.path(self.name))?;
        let count = |run: &Vec<Call>| runs.iter().filter(|other| are_same(run, other)).count();
        let usual = runs.iter().max_by_key(|run| count(run)).filter(|run| !run.is_empty());
        let usual = usual.with_context(|| format!("{} wrote nothing", self.name))?;
        Ok((usual.clone(), power::problems(usual)))
    }

    /// Runs the command under strace, from where it begins.
    pub fn traced(&self, bench: &Workbench, more: &[&str]) -> Result<(Ended, Vec<Call>)> {
        remove(&bench.path(OUT))?;
        if let Some(begins) = self.begins {
            copy(&bench.path(begins), &bench.path(OUT))?;
        }
        let strace = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", TRACE, "-e", WATCHED];
        let strace = [&strace[..], more].concat();
        let mut command = bench.under(&strace, self.arguments);
        // Calls are counted by thread.
        command.env("RAYON_NUM_THREADS", "1");
        let ended = bench.run(&mut command)?;
        let path = bench.path(TRACE);
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok((ended, trace::calls(&String::from_utf8_lossy(&text), bench.folder())))
    }
}

/// Leaves a run that was killed while it wrote the best adapter so far for the last time: there is a
/// checkpoint, and a file without a name.
fn cut(bench: &Workbench) -> Result<()> {
    let train = &SUBJECTS[0];
    for _ in 0..TRIES {
        let calls = train.traced(bench, &[])?.1;
        let is_last = |call: &&Call| {
            call.kind == Kind::Rename
                && call.paths.last().is_some_and(|path| path.ends_with("best/adapter_config.json"))
        };
        let last = calls.iter().rfind(is_last).context("a run has a best adapter")?;
        let kill = format!("inject={}:signal=SIGKILL:when={}", last.name, last.number);
        let calls = train.traced(bench, &["-e", &kill])?.1;
        if calls.iter().any(|call| call.is_injected && is_same(call, last)) {
            return Ok(std::fs::rename(bench.path(OUT), bench.path(CUT))?);
        }
    }
    anyhow::bail!("strace did not kill a run half-way")
}

/// Whether two calls, of two runs, are one.
pub fn is_same(a: &Call, b: &Call) -> bool {
    let paths = |call: &Call| call.paths.iter().map(|path| stable(path)).collect::<Vec<_>>();
    (&a.name, a.number, paths(a)) == (&b.name, b.number, paths(b))
}

fn are_same(a: &[Call], b: &[Call]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| to.display().to_string())?;
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy(&path, &to)?,
            false => drop(std::fs::copy(&path, &to).with_context(|| path.display().to_string())?),
        }
    }
    Ok(())
}

/// Removes a directory, if it is there.
pub fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    Ok(())
}
