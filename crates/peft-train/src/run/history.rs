//! What happened in a run, line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use peft_core::write_atomically;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::{Error, Result};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// An optimizer step.
    Step {
        /// Steps done, this one included.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The mean loss of the step's examples.
        loss: f32,
        /// The learning rate.
        lr: f64,
        /// Tokens, padding not counted.
        tokens: usize,
    },
    /// The validation data after an epoch.
    Valid {
        /// Steps done.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The metrics.
        metrics: Metrics,
    },
}

impl Entry {
    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Valid { step, .. } => *step,
        }
    }
}

/// The lines so far, and the file that they are appended to.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    entries: Vec<Entry>,
    file: std::fs::File,
}

impl History {
    /// The history in the file `path`, of which `keep` says what to keep; what a run wrote after
    /// its last checkpoint is taken back, since it will be done again.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, keep: impl Fn(&Entry) -> bool) -> Result<Self> {
        let mut entries = Vec::new();
        if let Ok(file) = std::fs::File::open(path) {
            for line in BufReader::new(file).lines() {
                let line = line.map_err(|e| Error::file(path, e))?;
                // The last line may be cut off where the run was.
                let Ok(entry) = serde_json::from_str::<Entry>(&line) else { break };
                if keep(&entry) {
                    entries.push(entry);
                }
            }
        }
        write_atomically(path, |file| {
            entries.iter().try_for_each(|entry| writeln!(file, "{}", line(entry)))
        })?;
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let file = file.map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.into(), entries, file })
    }

    /// The history up to a step.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn until(path: &Path, step: usize, epochs: usize) -> Result<Self> {
        Self::open(path, |entry| {
            entry.step() <= step && !matches!(entry, Entry::Valid { epoch, .. } if *epoch > epochs)
        })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        writeln!(self.file, "{}", line(&entry)).map_err(|e| Error::file(&self.path, e))?;
        self.entries.push(entry);
        Ok(())
    }

    /// The lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}
