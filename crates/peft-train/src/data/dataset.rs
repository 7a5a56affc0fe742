//! Labelled texts.

use std::path::Path;

use super::{Columns, Labels, Record, read_records};
use crate::Result;

/// What an example should give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The index of a label.
    Class(usize),
    /// A number.
    Value(f32),
}

/// A text, or a pair of texts, with what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// What it should give, if that is known.
    pub target: Option<Target>,
}

/// Labelled texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The examples, in the order of the file.
    pub examples: Vec<Example>,
    /// What the targets mean.
    pub labels: Labels,
}

impl Dataset {
    /// The examples of rows already read.
    ///
    /// # Errors
    /// If a label is unknown or not a number.
    pub fn from_records(path: &Path, records: Vec<Record>, labels: &Labels) -> Result<Self> {
        let empty = records.iter().filter(|record| record.text.trim().is_empty()).count();
        if empty > 0 {
            tracing::warn!("{}: {empty} rows have an empty text", path.display());
        }
        let examples = records
            .into_iter()
            .map(|record| {
                let target = labels.target(path, &record)?;
                Ok(Example { text: record.text, pair: record.pair, target })
            })
            .collect::<Result<_>>()?;
        Ok(Self { examples, labels: labels.clone() })
    }

    /// Reads a file whose labels are known.
    ///
    /// # Errors
    /// As [`read_records`], and if a label is unknown.
    pub fn load(path: &Path, columns: &Columns, labels: &Labels) -> Result<Self> {
        Self::from_records(path, read_records(path, columns)?, labels)
    }
}
