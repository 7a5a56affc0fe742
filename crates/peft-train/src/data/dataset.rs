//! Labelled texts.

use std::collections::BTreeMap;
use std::path::Path;

use peft_models::TextTokenizer;

use super::{Goal, Labels, Layout, Record, Sentence, TagColumn, read_records, read_sentences};
use crate::Result;

/// A text, as it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// One text.
    One(String),
    /// Two texts that belong together.
    Pair(String, String),
    /// A text that comes in words.
    Words(Vec<String>),
}

impl Text {
    /// A text for a goal: of words, those between blanks.
    pub fn new(goal: Goal, text: String) -> Self {
        match goal {
            Goal::Tag => Self::Words(text.split_whitespace().map(String::from).collect()),
            _ => Self::One(text),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::One(text) | Self::Pair(text, _) => text.trim().is_empty(),
            Self::Words(words) => words.is_empty(),
        }
    }
}

/// What an example should give.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The index of a label.
    Class(usize),
    /// A number.
    Value(f32),
    /// The index of a label for each word.
    Tags(Vec<usize>),
    /// A text: what follows, or what is made of the other.
    Text(String),
}

/// A text with what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text.
    pub text: Text,
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

/// What a file holds, before its labels are known.
enum Rows {
    Records(Vec<Record>),
    Sentences(Vec<Sentence>),
}

impl Rows {
    fn read(path: &Path, layout: &Layout, goal: Goal) -> Result<Self> {
        Ok(match goal {
            Goal::Tag => Self::Sentences(read_sentences(path, None, &layout.columns.tag_column())?),
            Goal::MaskedLm => Self::Records(read_records(path, &layout.without_label())?),
            Goal::Classify | Goal::Regress | Goal::CausalLm | Goal::Seq2Seq => {
                Self::Records(read_records(path, layout)?)
            }
        })
    }

    fn labels(&self, path: &Path, goal: Goal) -> Result<Labels> {
        match self {
            Self::Records(records) => Labels::from_records(path, goal, records),
            Self::Sentences(sentences) => Labels::from_sentences(path, sentences),
        }
    }

    fn examples(self, path: &Path, labels: &Labels) -> Result<Vec<Example>> {
        match self {
            Self::Records(records) => records
                .into_iter()
                .map(|record| {
                    let target = labels.target(path, &record)?;
                    Ok(Example { text: record.into(), target })
                })
                .collect(),
            Self::Sentences(sentences) => sentences
                .into_iter()
                .map(|sentence| {
                    let target = Some(labels.tags(path, &sentence)?);
                    Ok(Example { text: Text::Words(sentence.words), target })
                })
                .collect(),
        }
    }
}

impl From<Record> for Text {
    fn from(record: Record) -> Self {
        match record.pair {
            Some(pair) => Self::Pair(record.text, pair),
            None => Self::One(record.text),
        }
    }
}

impl Dataset {
    /// Reads a file, and what its labels are.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`], and if there is nothing to tell apart.
    pub fn discover(path: &Path, layout: &Layout, goal: Goal) -> Result<Self> {
        let rows = Rows::read(path, layout, goal)?;
        let labels = rows.labels(path, goal)?;
        Self::new(path, rows, labels)
    }

    /// Reads a file whose labels are known.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`], and if a label is unknown or not a number.
    pub fn load(path: &Path, layout: &Layout, labels: &Labels) -> Result<Self> {
        Self::new(path, Rows::read(path, layout, labels.goal)?, labels.clone())
    }

    /// Reads the texts of a file, which may lack the labels that the training data had.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`].
    pub fn unlabelled(path: &Path, layout: &Layout, labels: &Labels) -> Result<Self> {
        let texts: Vec<Text> = match labels.goal {
            Goal::Tag => {
                let sentences = read_sentences(path, None, &TagColumn::None)?;
                sentences.into_iter().map(|sentence| Text::Words(sentence.words)).collect()
            }
            _ => {
                let records = read_records(path, &layout.without_label());
                let records = records.or_else(|_| read_records(path, layout))?;
                records.into_iter().map(Text::from).collect()
            }
        };
        let examples = texts.into_iter().map(|text| Example { text, target: None }).collect();
        Ok(Self { examples, labels: labels.clone() })
    }

    fn new(path: &Path, rows: Rows, labels: Labels) -> Result<Self> {
        let examples = rows.examples(path, &labels)?;
        let empty = examples.iter().filter(|example| example.text.is_empty()).count();
        if empty > 0 {
            tracing::warn!("{}: {empty} rows have an empty text", path.display());
        }
        Ok(Self { examples, labels })
    }

    /// What of the texts that should be written the tokenizer has no token for, with how often it is
    /// there.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn unwritable(&self, tokenizer: &TextTokenizer) -> Result<BTreeMap<String, usize>> {
        let targets = self.examples.iter().filter_map(|example| match &example.target {
            Some(Target::Text(text)) => Some(text.clone()),
            _ => None,
        });
        Ok(tokenizer.unwritable(&targets.collect::<Vec<_>>())?)
    }

    /// Whether each example has what a goal with labels is measured against.
    pub fn is_labelled(&self) -> bool {
        !self.labels.goal.has_labels() || self.examples.iter().all(|e| e.target.is_some())
    }
}
