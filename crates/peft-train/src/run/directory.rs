//! The directory that a run writes.

use std::path::{Path, PathBuf};

use peft_core::write_atomically;
use serde::{Deserialize, Serialize};

use crate::data::{Labels, Layout};
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

/// Where a run keeps what.
///
/// | path | what |
/// |---|---|
/// | `run.toml` | the settings, resolved: `peft train run.toml --out ELSEWHERE` does it again |
/// | `data/` | the built-in data set, if that is what the run is on |
/// | `adapter/` | the trained adapter, in HF PEFT's layout, with `task.json`; `added_tokens.json` |
/// | `metrics.jsonl` | a line for each step and each evaluation |
/// | `plot.svg` | loss and metric |
/// | `result.json` | what came of it |
/// | `checkpoint/` | while the run is not finished: all that is needed to go on |
#[derive(Debug, Clone)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// The run in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The resolved settings.
    pub fn settings(&self) -> PathBuf {
        self.0.join("run.toml")
    }

    /// The trained adapter.
    pub fn adapter(&self) -> PathBuf {
        self.0.join("adapter")
    }

    /// The best adapter so far.
    pub(crate) fn best(&self) -> PathBuf {
        self.0.join("best")
    }

    /// The log.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The plot.
    pub fn plot(&self) -> PathBuf {
        self.0.join("plot.svg")
    }

    /// The result; there once the run is finished.
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// The checkpoint.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint")
    }

    /// Whether a run has been here.
    pub fn is_used(&self) -> bool {
        self.settings().exists() || self.adapter().exists() || self.metrics().exists()
    }
}
