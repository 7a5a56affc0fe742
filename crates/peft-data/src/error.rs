//! What can go wrong with data, and where.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with data.
///
/// A `reason` is a text, or the error that reading met (an [`io::Error`](std::io::Error), for one),
/// which `downcast_ref` gives. It is shown with its place, and is therefore not a source as well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or does not hold what it should.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row of a file is wrong.
    #[error("{path}, {} {line}: {reason}", rows(.path))]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1; its row, where a file has no lines.
        line: u64,
        /// What is wrong.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting of data does not fit: columns, a template, the task.
    #[error("{setting} = {value}: {expected}")]
    Setting {
        /// The setting, as run files name it.
        setting: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A text cannot be tokenized, or does not fit the model.
    #[error(transparent)]
    Host(#[from] peft_models::Error),
}

/// What the rows of a file are called.
fn rows(path: &Path) -> &'static str {
    let is_parquet = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
    if is_parquet { "row" } else { "line" }
}

impl Error {
    /// A [`File`](Self::File) error.
    pub(crate) fn file(
        path: &Path,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::File { path: path.into(), reason: reason.into() }
    }

    /// A [`Row`](Self::Row) error.
    pub(crate) fn row(
        path: &Path,
        line: u64,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Row { path: path.into(), line, reason: reason.into() }
    }

    /// A [`Setting`](Self::Setting) error.
    pub(crate) fn setting(
        setting: impl Into<String>,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Setting {
            setting: setting.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{LabelColumn, Layout, TagColumn, read_records, read_sentences};

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_the_error_that_was_met_is_kept() {
        let check = |path: &Path, error: Error| {
            let met = |reason: &(dyn std::error::Error + 'static)| {
                reason.downcast_ref().map(io::Error::kind)
            };
            assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
            let Error::File { reason, .. } = error else { panic!("{error:?}") };
            assert_eq!(met(&*reason), Some(io::ErrorKind::NotFound), "{reason:?}");
        };
        for name in ["a.tsv", "a.csv", "a.jsonl", "a.json", "a.txt"] {
            let path = Path::new("nowhere").join(name);
            let error = read_records(&path, &Layout::default(), LabelColumn::Required);
            check(&path, error.expect_err("not there"));
            check(&path, read_sentences(&path, None, &TagColumn::Usual).expect_err("not there"));
        }
    }
}
