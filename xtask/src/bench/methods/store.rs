//! What was measured, a line each.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::run::Configuration;

/// A line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Record {
    /// A training and its accuracy.
    Trained(Trained),
    /// What it takes, with nothing else running.
    Timed(Timed),
}

/// A training and its accuracy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trained {
    #[serde(flatten)]
    pub configuration: Configuration,
    pub data: String,
    pub seed: u64,
    pub accuracy: f64,
    /// Values, those of the head included.
    pub trainable: u64,
    pub changed: u64,
    pub rank: u64,
    pub mergeable: bool,
    /// Of the adapter's directory.
    pub file_bytes: u64,
}

/// What a method takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timed {
    #[serde(flatten)]
    pub configuration: Configuration,
    pub data: String,
    pub processor: String,
    /// Of training over all texts once.
    pub epoch_seconds: f64,
    pub peak_bytes: u64,
    /// Of the test texts, beside the model with its head alone.
    pub inference: f64,
}

/// The file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    pub records: Vec<Record>,
}

impl Store {
    /// # Errors
    /// If a line cannot be read.
    pub fn open(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let read = |(number, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1))
        };
        let records = text.lines().enumerate().map(read).collect::<Result<_>>()?;
        Ok(Self { path, records })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, record: Record) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{}", serde_json::to_string(&record)?)?;
        self.records.push(record);
        Ok(())
    }

    pub fn trained(&self) -> impl Iterator<Item = &Trained> {
        self.records.iter().filter_map(|record| match record {
            Record::Trained(trained) => Some(trained),
            Record::Timed(_) => None,
        })
    }

    pub fn timed(&self) -> impl Iterator<Item = &Timed> {
        self.records.iter().filter_map(|record| match record {
            Record::Timed(timed) => Some(timed),
            Record::Trained(_) => None,
        })
    }
}
