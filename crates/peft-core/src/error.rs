//! What can go wrong, and where.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a method or its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of a configuration has a value that makes no sense.
    #[error("{field} = {value}: {expected}")]
    Config {
        /// The field, as the configuration file names it.
        field: String,
        /// The value found.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A configuration has a field that the method does not know, or does not support.
    #[error("{method} has no setting {field:?}; its settings are: {known}")]
    UnknownField {
        /// The method.
        method: String,
        /// The field.
        field: String,
        /// The fields there are.
        known: String,
    },
    /// A configuration asks for something of the reference library that is not supported here.
    #[error("{field} = {value} in {origin} is not supported")]
    Unsupported {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// Where it stands.
        origin: String,
    },
    /// A pattern of targets selects nothing.
    #[error("{field} {pattern} matches no {what} of the model; it has: {available}")]
    NoMatch {
        /// The field that holds the pattern.
        field: String,
        /// The pattern.
        pattern: String,
        /// What was looked for.
        what: String,
        /// Names that would match.
        available: String,
    },
    /// A regular expression cannot be read.
    #[error("{field}: {pattern:?} is not a regular expression: {reason}")]
    Pattern {
        /// The field that holds it.
        field: String,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A regular expression has no answer for a module.
    #[error("{field}: {pattern:?} cannot be matched with {path}: {reason}")]
    Match {
        /// The field that holds it.
        field: String,
        /// The expression.
        pattern: String,
        /// The module's path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A method cannot be merged.
    #[error("{method} cannot be merged: {reason}")]
    Merge {
        /// The method.
        method: String,
        /// Why.
        reason: String,
    },
    /// A file format does not carry a method.
    #[error("{method} cannot be written for {library}: {reason}")]
    NoFormat {
        /// The method.
        method: String,
        /// Whose format it is.
        library: String,
        /// Why.
        reason: String,
    },
    /// A method asked for a pass of the model, which failed.
    #[error("the model could not be run")]
    Pass {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A method asked for the tokens of a text, which cannot be had.
    #[error("the text {text:?} cannot be tokenised")]
    Encode {
        /// The text.
        text: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Methods do not go together.
    #[error("{composition} of {methods}: {reason}")]
    Compose {
        /// How they were to be composed.
        composition: String,
        /// Which.
        methods: String,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// A [`Config`](Self::Config) error.
    pub fn config(
        field: impl Into<String>,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config { field: field.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A [`NoFormat`](Self::NoFormat) error.
    pub fn no_format(method: &str, library: &str, reason: impl Into<String>) -> Self {
        Self::NoFormat { method: method.into(), library: library.into(), reason: reason.into() }
    }

    /// A [`Pass`](Self::Pass) error.
    pub fn pass(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Pass { source: Box::new(source) }
    }

    /// An [`Encode`](Self::Encode) error.
    pub fn encode(text: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Encode { text: text.into(), source: Box::new(source) }
    }
}
