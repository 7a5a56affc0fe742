//! Where things are, and how cargo is called.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell};

/// Crates under `crates/` that are not methods.
const NOT_METHODS: &[&str] = &[
    "peft",
    "peft-cli",
    "peft-conformance",
    "peft-core",
    "peft-format",
    "peft-data",
    "peft-kernels",
    "peft-models",
    "peft-train",
];

/// The workspace that this program belongs to.
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// A shell in the root folder.
    pub shell: Shell,
}

impl Workspace {
    /// The workspace in which cargo runs this program.
    pub fn find() -> Result<Self> {
        // Not the one that it was compiled in: two clones may share a target folder.
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("this program is for `cargo xtask`, which tells it where the workspace is")?;
        let root =
            Path::new(&here).parent().context("xtask lies in the workspace's root")?.to_path_buf();
        let shell = Shell::new()?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            // Cargo resolves a relative one against the folder it is called from, as we do.
            Some(folder) => std::path::absolute(folder)?,
            // The user's own configuration may say where; only cargo knows.
            None => {
                shell.change_dir(&root);
                target_of(&shell)?
            }
        };
        shell.change_dir(&root);
        Ok(Self { root, target, shell })
    }

    /// The cargo that runs this program, called in the root folder.
    pub fn cargo(&self) -> Cmd<'_> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        self.shell.cmd(cargo).env("CARGO_TARGET_DIR", &self.target)
    }

    /// The crates under `crates/`, by name.
    pub fn crates(&self) -> Result<Vec<Crate>> {
        let folder = self.root.join("crates");
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("{} cannot be read", folder.display()))?;
        let mut crates = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                crates.push(Crate { name, folder });
            }
        }
        crates.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(crates)
    }

    /// A file's path from the root folder on, for messages.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// A crate under `crates/`; its folder has its name.
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Crate {
    /// Whether it is a method crate.
    pub fn is_method(&self) -> bool {
        !NOT_METHODS.contains(&self.name.as_str())
    }

    /// Whether it runs the conformance suite.
    pub fn has_conformance(&self) -> bool {
        self.folder.join("tests/conformance.rs").is_file()
    }
}

/// The target folder of the workspace in the shell's folder.
fn target_of(shell: &Shell) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let flags = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let text = shell.cmd(cargo).args(flags).quiet().read()?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let target = metadata.get("target_directory").and_then(|target| target.as_str());
    Ok(PathBuf::from(target.context("cargo metadata names no target_directory")?))
}
