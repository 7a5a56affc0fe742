//! What can go wrong with adapters in files, and where.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with adapters, their files and their names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A method or its configuration is wrong.
    #[error(transparent)]
    Core(#[from] peft_core::Error),
    /// No registered method has this name.
    #[error("there is no method {name:?}; there are: {known}")]
    UnknownMethod {
        /// The name or tag.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An adapter's tensors do not fit the model.
    #[error("{path}: the adapter does not fit the model: {problems}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Each key with what is wrong with it.
        problems: String,
    },
    /// An adapter's table has other rows than the model's.
    #[error(
        "{path}: {key} has {found} rows, and the model has {expected}: tokens were added before \
         training, and the model must be resized as it was then"
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// The key of the table.
        key: String,
        /// Its rows.
        found: usize,
        /// Those of the model.
        expected: usize,
    },
    /// A file is missing, truncated or not of its format.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// A [`File`](Self::File) error.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }
}
