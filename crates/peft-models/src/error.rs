//! What can go wrong when a model is loaded.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong when a model is loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing, truncated or not of its format.
    #[error("{path}: {reason}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model's configuration asks for something that is not supported.
    #[error("{path}: {field} = {value} is not supported; supported: {supported}")]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What would be.
        supported: String,
    },
    /// The checkpoint lacks tensors that the model cannot do without.
    #[error("{path}: the checkpoint lacks {keys}; it has, for example, {found}")]
    MissingKeys {
        /// The checkpoint.
        path: PathBuf,
        /// The missing keys.
        keys: String,
        /// Some keys that are there.
        found: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{path}: {key} has shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// A token cannot be added to a tokenizer.
    #[error("added token {token:?}: {reason}")]
    AddedToken {
        /// The token.
        token: String,
        /// What is wrong.
        reason: String,
    },
    /// Texts are to be cut where nothing of them is left.
    #[error(
        "max_length = {max_tokens}: must be at least {least} (special tokens of {input}: {special})"
    )]
    MaxTokens {
        /// The tokens that texts are to be cut to.
        max_tokens: usize,
        /// The fewest that they can be cut to: one of each text is left.
        least: usize,
        /// The special tokens among these.
        special: usize,
        /// What is cut: a text, or a pair.
        input: &'static str,
    },
    /// An input does not fit the model.
    #[error("input: {0}")]
    Input(String),
    /// No token can follow a text.
    #[error("text {text} of the batch cannot be continued after {tokens} tokens: {reason}")]
    Generation {
        /// Its index in the batch.
        text: usize,
        /// The tokens that it has.
        tokens: usize,
        /// Why none can follow.
        reason: String,
    },
    /// A file of tensors is missing or broken.
    #[error(transparent)]
    Format(#[from] peft_format::Error),
}

impl Error {
    /// A [`File`](Self::File) error.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }

    /// An [`AddedToken`](Self::AddedToken) error.
    pub(crate) fn added_token(token: &str, reason: impl ToString) -> Self {
        Self::AddedToken { token: token.into(), reason: reason.to_string() }
    }
}
