//! The cases of a folder of fixtures.

use std::path::{Path, PathBuf};

use crate::case::{Case, Outcome};

/// The folders of a fixtures folder, in the order in which their cases run.
pub const KINDS: [&str; 4] = ["bases", "peft", "adapters", "curves"];

/// A folder of fixtures: a folder for each kind, in it one for each case.
#[derive(Debug, Clone)]
pub struct Fixtures {
    root: PathBuf,
    whole: bool,
}

/// A case that was looked for.
#[derive(Debug)]
pub struct Found {
    /// `peft/bert-lora`; without a `/` where a whole folder is missing.
    pub name: String,
    /// The case, or why there is none.
    pub case: Result<Case, Outcome>,
}

impl Fixtures {
    /// A folder that has cases of every kind.
    pub fn whole(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), whole: true }
    }

    /// A folder that has cases of some kinds.
    pub fn some(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), whole: false }
    }

    /// The cases, by kind and name. What should be there and is missing or broken is among them, so
    /// that it does not go unnoticed.
    pub fn cases(&self) -> Vec<Found> {
        let folders = match folders(&self.root) {
            Ok(folders) => folders,
            Err(why) => return vec![failed("fixtures", why)],
        };
        let is_there = |kind: &str| folders.iter().any(|(name, _)| name == kind);
        if !KINDS.iter().any(|kind| is_there(kind)) {
            let why = format!("{}: none of {}", self.root.display(), KINDS.join(", "));
            return vec![failed("fixtures", why)];
        }
        let wanted = KINDS.iter().filter(|kind| self.whole || is_there(kind));
        let mut found: Vec<Found> = wanted.flat_map(|kind| self.of_kind(kind)).collect();
        let other = folders.into_iter().filter(|(name, _)| !KINDS.contains(&name.as_str()));
        found.extend(other.map(|(name, _)| {
            let why = format!("no kind of cases; there are {}", KINDS.join(", "));
            Found { name, case: Err(Outcome::NotSupported(why)) }
        }));
        found
    }

    fn of_kind(&self, kind: &str) -> Vec<Found> {
        let directory = self.root.join(kind);
        match folders(&directory) {
            Ok(folders) if folders.is_empty() => {
                vec![failed(kind, format!("{}: no cases", directory.display()))]
            }
            Ok(folders) => folders
                .into_iter()
                .map(|(folder, directory)| {
                    let name = format!("{kind}/{folder}");
                    let case = Case::open(&self.root, &name, directory).map_err(Outcome::Failed);
                    Found { name, case }
                })
                .collect(),
            Err(why) => vec![failed(kind, why)],
        }
    }
}

fn failed(name: &str, why: String) -> Found {
    Found { name: name.into(), case: Err(Outcome::Failed(why)) }
}

/// What `directory` holds besides files, by name; a link to nowhere is not a file either.
fn folders(directory: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.path().is_file() {
            folders.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    folders.sort();
    Ok(folders)
}
