//! The directory that a run writes.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peft_data::{Labels, Layout};
use peft_format::{ADAPTER_CONFIG, create_directory, remove_unfinished, write_atomically};
use peft_models::{Precision, Task};
use serde::{Deserialize, Serialize};

use super::sums::Sums;
use super::{Entry, Outcome, checkpoint, history};
use crate::{Error, Result};

/// The file beside an adapter that says what its outputs mean.
pub const TASK_FILE: &str = "task.json";

/// What an adapter's outputs mean: kept with it, so that it can be evaluated and used alone. HF
/// PEFT has no place for this and ignores the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskFile {
    /// The goal and the names of its labels.
    #[serde(flatten)]
    pub labels: Labels,
    /// What the rows of the training data were.
    #[serde(flatten)]
    pub layout: Layout,
    /// Texts are cut to this many tokens.
    pub max_length: usize,
    /// The precision of the frozen weights in training.
    #[serde(default, skip_serializing_if = "is_stored")]
    pub load_in: Precision,
}

fn is_stored(precision: &Precision) -> bool {
    *precision == Precision::Stored
}

impl TaskFile {
    /// Reads the file from an adapter's directory.
    ///
    /// # Errors
    /// If it is missing or broken.
    pub fn load(adapter: &Path) -> Result<Self> {
        let path = adapter.join(TASK_FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        serde_json::from_str(&text).map_err(|e| Error::file(&path, e))
    }

    /// Reads the file of an adapter whose head is for this task. Labels without names get those
    /// that transformers gives them.
    ///
    /// # Errors
    /// If it is missing or broken, or its goal or its names are those of another head.
    pub fn load_for(adapter: &Path, task: Task) -> Result<Self> {
        let file = Self::load(adapter)?;
        let labels = file.labels.with_names_for(task);
        labels.check(task).map_err(|error| Error::file(adapter.join(TASK_FILE), error))?;
        Ok(Self { labels, ..file })
    }

    /// Writes the file into an adapter's directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, adapter: &Path) -> Result<()> {
        let path = adapter.join(TASK_FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e))?;
        Ok(write_atomically(&path, |file| writeln!(file, "{text}"))?)
    }
}

/// The file that is locked while a process writes to the directory.
const LOCK: &str = "run.lock";

/// Whether two files are one.
#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Elsewhere than on Unix a file that is open cannot be replaced.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Where a run keeps what.
///
/// | path | what |
/// |---|---|
/// | `adapter/` | the trained adapter, in HF PEFT's layout, with `task.json`; `added_tokens.json` |
/// | `metrics.jsonl` | a line for each step and each evaluation |
/// | `result.json` | what came of it |
/// | `SHA256SUMS` | digests of the result and the adapter; `checkpoint/` has another, of its files |
/// | `checkpoint/`, `best/` | while the run is not finished: all that is needed to go on, and the best adapter so far |
/// | `run.lock` | locked while a process writes to the directory; it stays, and holds nothing |
/// | `run.toml` | the settings, for a program that starts runs: a trainer does not write it |
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
    /// The file that is locked; unlocked when the last clone is dropped, or the process ends.
    lock: Option<Arc<File>>,
}

impl RunDirectory {
    /// The run in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), lock: None }
    }

    /// The directory, made if need be, as that of a run of one's own: until it and its clones are
    /// dropped, no other can have it. A [`Trainer`](crate::Trainer) claims its directory; who writes
    /// into it before claims it then, and gives the trainer a clone.
    ///
    /// # Errors
    /// [`Error::InUse`] if another run is writing to it; [`Error::Used`] if one has, unless `resume`
    /// says that it goes on.
    pub fn claim(self, resume: bool) -> Result<Self> {
        let is_new = self.lock.is_none();
        let (lock, is_used) = match &self.lock {
            // The settings there are the claimant's own.
            Some(lock) => (lock.clone(), self.holds_results()),
            None => (Arc::new(self.locked()?), self.is_used()),
        };
        if is_used && !resume {
            return Err(Error::Used { path: self.path });
        }
        if is_new {
            // Of a process that was killed while it wrote.
            let places = [self.adapter(), self.best(), self.checkpoint(), self.path.join("data")];
            for directory in places.iter().chain([&self.path]).filter(|path| path.is_dir()) {
                remove_unfinished(directory)?;
            }
        }
        Ok(Self { lock: Some(lock), ..self })
    }

    fn locked(&self) -> Result<File> {
        create_directory(&self.path).map_err(|e| Error::file(&self.path, e))?;
        let path = self.path.join(LOCK);
        // Never removed: another process may have it open, and would lock what nobody else sees.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::file(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "{}: this file system has no locks: make sure that no other run writes there",
                    self.path.display()
                );
                Ok(file)
            }
            Err(TryLockError::Error(e)) => Err(Error::file(&path, e)),
        }
    }

    /// Refuses to go on where the directory was removed, or replaced by another, since it was
    /// claimed: what is written to it would be lost, or be among what another run writes.
    pub(crate) fn check_is_there(&self) -> Result<()> {
        let path = self.path.join(LOCK);
        let gone =
            || Error::file(&self.path, "was removed, or replaced, while the run wrote to it");
        let Some(lock) = &self.lock else { return Ok(()) };
        let there = std::fs::metadata(&path).map_err(|_| gone())?;
        let locked = lock.metadata().map_err(|e| Error::file(&path, e))?;
        if is_same(&there, &locked) { Ok(()) } else { Err(gone()) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved settings.
    pub fn settings(&self) -> PathBuf {
        self.path.join("run.toml")
    }

    /// The trained adapter.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// Whether there is a checkpoint to resume from.
    pub fn has_checkpoint(&self) -> bool {
        checkpoint::kept(&self.checkpoint()).is_some()
    }

    /// Removes what a finished run does not need: the checkpoint, and the best adapter so far.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn discard_checkpoint(&self) -> Result<()> {
        checkpoint::remove(&self.checkpoint())?;
        // First, so that what is left at any moment does not say that it is an adapter.
        let config = self.best().join(ADAPTER_CONFIG);
        match std::fs::remove_file(&config) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::file(&config, format!("cannot be removed: {e}")))
            }
            _ => checkpoint::removed(&self.best()),
        }
    }

    /// The directory of an adapter where `path` is that of a run, whose adapter is meant; any other
    /// path as it is.
    pub fn adapter_in(path: PathBuf) -> PathBuf {
        let adapter = Self::new(&path).adapter();
        let is_run = !path.join(ADAPTER_CONFIG).exists() && adapter.join(ADAPTER_CONFIG).exists();
        if is_run { adapter } else { path }
    }

    /// The best adapter so far.
    pub(crate) fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// The log.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The result; there once the run is finished.
    pub fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }

    /// The checkpoint.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// What came of the run, if it is finished.
    ///
    /// # Errors
    /// If the file is broken, or the result or the adapter has changed since it was written.
    pub fn outcome(&self) -> Result<Option<Outcome>> {
        let path = self.result();
        match std::fs::read(&path) {
            Ok(bytes) => {
                if let Some(sums) = Sums::load(&self.path)? {
                    sums.check(&self.path, &[])?;
                }
                serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file(&path, e))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(&path, e)),
        }
    }

    /// The lines of the log; none if there is no log.
    ///
    /// # Errors
    /// As [`History::open`](super::History::open); nothing is written.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        history::read(&self.metrics())
    }

    /// Whether a run has been here.
    pub fn is_used(&self) -> bool {
        self.settings().exists() || self.holds_results()
    }

    /// Whether a trainer has written here.
    fn holds_results(&self) -> bool {
        let files = [self.adapter(), self.best(), self.metrics(), self.checkpoint(), self.result()];
        files.iter().any(|file| file.exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        std::fs::write(path, "").expect("written");
    }

    #[test]
    fn a_directory_belongs_to_one_run_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs/a");
        let run = RunDirectory::new(&path).claim(false).expect("a new directory");
        let clone = run.clone();
        for resume in [false, true] {
            let error = RunDirectory::new(&path).claim(resume).expect_err("another has it");
            assert!(matches!(error, Error::InUse { .. }), "{error}");
            let shown = format!("{}: another process is using this run directory", path.display());
            assert_eq!(error.to_string(), shown);
        }
        drop(run);
        RunDirectory::new(&path).claim(false).expect_err("a clone has it");
        drop(clone);
        RunDirectory::new(&path).claim(false).expect("nobody has it, and nothing is there");
    }

    #[test]
    fn a_used_directory_is_claimed_only_to_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["run.toml", "adapter", "best", "metrics.jsonl", "checkpoint", "result.json"];
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("made");
            write(&path.join(name));
            let error = RunDirectory::new(&path).claim(false).expect_err("used");
            assert!(matches!(error, Error::Used { .. }), "{name}: {error}");
            RunDirectory::new(&path).claim(true).expect(name);
            // Who is refused has not kept it.
            RunDirectory::new(&path).claim(true).expect(name);
        }
    }

    #[test]
    fn who_has_claimed_a_directory_may_write_settings_but_no_second_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunDirectory::new(folder.path()).claim(false).expect("a new directory");
        write(&run.settings());
        let run = run.clone().claim(false).expect("the settings are its own");
        write(&run.metrics());
        let error = run.clone().claim(false).expect_err("a run was there");
        assert!(matches!(error, Error::Used { .. }), "{error}");
        run.claim(true).expect("it goes on");
    }
}
