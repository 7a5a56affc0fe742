//! What is learned: labels, numbers, or the words themselves.

use std::collections::BTreeSet;
use std::path::Path;

use peft_models::Task;
use serde::{Deserialize, Serialize};

use super::{Record, Sentence, TagScheme, Target};
use crate::{Error, Result};

/// What is learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// One of several labels.
    #[default]
    Classify,
    /// A number.
    Regress,
    /// A label for each word.
    Tag,
    /// Words that are hidden in the text.
    #[serde(rename = "mlm")]
    MaskedLm,
    /// The next word of a text, or of what follows it.
    #[serde(rename = "clm")]
    CausalLm,
    /// A text made of another.
    Seq2Seq,
}

impl Goal {
    /// Whether examples have labels: otherwise the text is all there is to learn.
    pub fn has_labels(self) -> bool {
        match self {
            Self::Classify | Self::Regress | Self::Tag | Self::Seq2Seq => true,
            Self::MaskedLm | Self::CausalLm => false,
        }
    }

    /// Whether a model is asked about tokens, not about a text as a whole.
    pub fn is_over_tokens(self) -> bool {
        !matches!(self, Self::Classify | Self::Regress)
    }

    /// Whether the answers are words of the model's vocabulary.
    pub fn is_language(self) -> bool {
        matches!(self, Self::MaskedLm | Self::CausalLm | Self::Seq2Seq)
    }
}

/// The goal with the names of its labels, kept with the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The goal.
    pub goal: Goal,
    /// The labels by index; only classes have names.
    #[serde(default)]
    pub names: Vec<String>,
}

impl Labels {
    /// The labels that occur in `records`, sorted (as numbers, if all are).
    ///
    /// # Errors
    /// If a row has no label, or there are fewer than two.
    pub fn from_records(path: &Path, goal: Goal, records: &[Record]) -> Result<Self> {
        if goal != Goal::Classify {
            return Ok(Self { goal, names: Vec::new() });
        }
        let mut names: Vec<String> = records
            .iter()
            .filter_map(|r| r.label.as_deref().map(|l| l.trim().to_string()))
            .collect();
        if names.len() < records.len() {
            return Err(Error::setting(
                "columns",
                "",
                "names no label column, which training needs",
            ));
        }
        if let Some(record) =
            records.iter().find(|r| r.label.as_deref().is_some_and(|l| l.trim().is_empty()))
        {
            return Err(Error::row(path, record.line, "the label is empty"));
        }
        names.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        });
        names.dedup();
        Self::named(path, goal, names)
    }

    /// The tags that occur in `sentences`, sorted.
    ///
    /// # Errors
    /// If there are fewer than two.
    pub fn from_sentences(path: &Path, sentences: &[Sentence]) -> Result<Self> {
        let tags: BTreeSet<&String> = sentences.iter().flat_map(|s| &s.tags).collect();
        Self::named(path, Goal::Tag, tags.into_iter().cloned().collect())
    }

    fn named(path: &Path, goal: Goal, names: Vec<String>) -> Result<Self> {
        if names.len() < 2 {
            let only = names.first().map_or("none", String::as_str);
            let reason = format!("only one label occurs ({only}): there is nothing to tell apart");
            return Err(Error::file(path, reason));
        }
        Ok(Self { goal, names })
    }

    /// Whether the tags of words are of entities, each of which may be several words.
    pub fn are_entities(&self) -> bool {
        let names = self.names.iter().map(String::as_str);
        self.goal == Goal::Tag && TagScheme::of(names) != TagScheme::Words
    }

    /// What a model is loaded for to give these.
    pub fn task(&self) -> Task {
        match self.goal {
            Goal::Classify => Task::ClassifySequence { labels: self.names.len() },
            Goal::Regress => Task::ClassifySequence { labels: 1 },
            Goal::Tag => Task::ClassifyTokens { labels: self.names.len() },
            Goal::MaskedLm => Task::MaskedLm,
            Goal::CausalLm => Task::CausalLm,
            Goal::Seq2Seq => Task::Seq2SeqLm,
        }
    }

    /// The target of a row.
    ///
    /// # Errors
    /// If the label is unknown, or not a number where one is wanted.
    pub(crate) fn target(&self, path: &Path, record: &Record) -> Result<Option<Target>> {
        let Some(label) = record.label.as_deref().map(str::trim) else { return Ok(None) };
        match self.goal {
            Goal::Tag | Goal::MaskedLm => Ok(None),
            Goal::CausalLm | Goal::Seq2Seq => Ok(Some(Target::Text(label.to_string()))),
            Goal::Regress => match label.parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(Some(Target::Value(value))),
                _ => Err(Error::row(path, record.line, format!("{label:?} is not a number"))),
            },
            Goal::Classify => Ok(Some(Target::Class(self.index(path, record.line, label)?))),
        }
    }

    /// The targets of a sentence's words.
    ///
    /// # Errors
    /// If a tag is unknown.
    pub(crate) fn tags(&self, path: &Path, sentence: &Sentence) -> Result<Target> {
        let tags = sentence.tags.iter().map(|tag| self.index(path, sentence.line, tag));
        Ok(Target::Tags(tags.collect::<Result<_>>()?))
    }

    fn index(&self, path: &Path, line: u64, label: &str) -> Result<usize> {
        self.names.iter().position(|name| name == label).ok_or_else(|| {
            let known = self.names.join(", ");
            Error::row(path, line, format!("unknown label {label:?}; the labels are: {known}"))
        })
    }
}
