//! What can go wrong in a run, and where.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing, cannot be written, or is not of its format.
    #[error("{path}: {reason}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is not what it was when it was written.
    #[error("{path}: damaged: not what was written (by its SHA-256)")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A run was asked to stop, and can be resumed from its checkpoint.
    #[error("{path}: stopped after {step} of {total} steps")]
    Stopped {
        /// The run directory.
        path: PathBuf,
        /// The steps done.
        step: usize,
        /// The steps that the run has.
        total: usize,
    },
    /// What a model puts out, or a metric of it, is infinite or no number.
    #[error("the {quantity} of the model under this adapter is not finite")]
    NotFinite {
        /// What is not finite: the output, or a metric.
        quantity: String,
    },
    /// A line of a run's log is broken.
    #[error("{path}, line {line}: not an entry of a run")]
    Log {
        /// The log.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A setting makes no sense.
    #[error("{setting} = {value}: {expected}")]
    Setting {
        /// The setting, as run files name it.
        setting: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A run directory is that of a run in another process, or elsewhere in this one.
    #[error("{path}: another process is using this run directory")]
    InUse {
        /// The run directory.
        path: PathBuf,
    },
    /// A run directory holds a run that is not to be resumed.
    #[error("{path} already holds a run: resume it, or choose another directory")]
    Used {
        /// The run directory.
        path: PathBuf,
    },
    /// The loss, or what judges epochs, is infinite or no number.
    #[error(
        "the {quantity} is not finite at step {step}: lower the learning rate, clip gradients \
         (max_grad_norm), or look at the data of that step"
    )]
    Diverged {
        /// The step.
        step: usize,
        /// What is not finite: the loss, the metric of the validation data, or a parameter.
        quantity: String,
    },
    /// The data cannot be read, or a text does not fit the model.
    #[error(transparent)]
    Data(#[from] peft_data::Error),
    /// The model cannot be loaded, or an input does not fit it.
    #[error(transparent)]
    Host(#[from] peft_models::Error),
    /// A method is wrong.
    #[error(transparent)]
    Core(#[from] peft_core::Error),
    /// An adapter or its files are wrong.
    #[error(transparent)]
    Format(#[from] peft_format::Error),
}

impl Error {
    /// A [`File`](Self::File) error.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }

    /// A [`Damaged`](Self::Damaged) error.
    pub(crate) fn damaged(path: impl Into<PathBuf>) -> Self {
        Self::Damaged { path: path.into() }
    }

    /// A [`Setting`](Self::Setting) error.
    pub fn setting(
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
