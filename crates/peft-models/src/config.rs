//! `config.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peft_core::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Error, Result, config_fields};

/// The architectures there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// BERT (Devlin et al. 2019, arXiv 1810.04805).
    Bert,
    /// RoBERTa (Liu et al. 2019, arXiv 1907.11692).
    Roberta,
    /// XLM-RoBERTa: RoBERTa with another vocabulary.
    XlmRoberta,
}

impl Architecture {
    /// All of them.
    const ALL: &[Self] = &[Self::Bert, Self::Roberta, Self::XlmRoberta];

    /// The name of the body inside a task model's checkpoint: `bert`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta | Self::XlmRoberta => "roberta",
        }
    }

    /// `model_type` in `config.json`: `bert`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
        }
    }

    /// The class name's first part: `Bert`.
    fn class(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Roberta => "Roberta",
            Self::XlmRoberta => "XLMRoberta",
        }
    }
}

/// What the model does with its last hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Returns them: `[batch, tokens, d]`.
    Encode,
    /// One row of `labels` logits for a sequence; one label is a regression.
    ClassifySequence {
        /// The number of labels.
        labels: usize,
    },
    /// `labels` logits for each token.
    ClassifyTokens {
        /// The number of labels.
        labels: usize,
    },
    /// A logit of each word for each token, from what is on both sides of it.
    MaskedLm,
}

impl Task {
    /// The end of a class's name in transformers: `ForMaskedLM`.
    fn class_suffix(self) -> &'static str {
        match self {
            Self::Encode => "Model",
            Self::ClassifySequence { .. } => "ForSequenceClassification",
            Self::ClassifyTokens { .. } => "ForTokenClassification",
            Self::MaskedLm => "ForMaskedLM",
        }
    }
}

/// The fields of `config.json` that every architecture has, under the names that they have there;
/// each architecture reads its own beside them.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelConfig {
    /// The architecture.
    pub model_type: Architecture,
    /// Width `d` of the hidden states.
    #[serde(alias = "n_embd", alias = "d_model", alias = "dim")]
    pub hidden_size: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// The token that fills up a batch.
    #[serde(default)]
    pub pad_token_id: Option<usize>,
    /// Names of the labels by index, if the checkpoint has a head.
    #[serde(default)]
    pub id2label: BTreeMap<String, String>,
    /// The class that the checkpoint was saved from.
    #[serde(default)]
    pub architectures: Option<Vec<String>>,
    #[serde(skip)]
    raw: Map<String, Value>,
    /// For messages.
    #[serde(skip)]
    path: PathBuf,
}

impl ModelConfig {
    /// Reads the configuration of a directory, see [`config_fields`].
    ///
    /// # Errors
    /// If there is none, it is broken, or of an architecture that is not supported. What else is
    /// not supported is an error when the model is loaded.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let path = if path.exists() { &path } else { directory };
        Self::from_fields(config_fields(directory)?, path)
    }

    /// From the fields of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// If the fields are broken, or of an architecture that is not supported.
    pub fn from_fields(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let found = raw.get("model_type").and_then(Value::as_str);
        if !Architecture::ALL.iter().any(|known| found == Some(known.name())) {
            let known: Vec<&str> = Architecture::ALL.iter().map(|known| known.name()).collect();
            return Err(Error::Unsupported {
                path: path.into(),
                field: "model_type".into(),
                value: raw.get("model_type").unwrap_or(&Value::Null).to_string(),
                supported: known.join(", "),
            });
        }
        let config: Self =
            serde_json::from_value(Value::Object(raw.clone())).map_err(|e| Error::file(path, e))?;
        Ok(Self { raw, path: path.into(), ..config })
    }

    /// The fields that are an architecture's own.
    pub(crate) fn read<C: DeserializeOwned>(&self) -> Result<C> {
        serde_json::from_value(Value::Object(self.raw.clone()))
            .map_err(|e| Error::file(&self.path, e))
    }

    /// An error that names the field.
    pub(crate) fn unsupported(&self, field: &str, supported: impl Into<String>) -> Error {
        Error::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            value: self.raw.get(field).unwrap_or(&Value::Null).to_string(),
            supported: supported.into(),
        }
    }

    /// Refuses a field that is there with another value than these.
    pub(crate) fn only(&self, field: &str, values: &[&str]) -> Result<()> {
        let shown = |value: &Value| value.as_str().map_or(value.to_string(), String::from);
        match self.raw.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if values.contains(&shown(value).as_str()) => Ok(()),
            Some(_) => Err(self.unsupported(field, values.join(", "))),
        }
    }

    /// Refuses an activation that is not known.
    pub(crate) fn activation(&self, field: &str) -> Result<()> {
        match self.raw.get(field) {
            Some(value) if Activation::deserialize(value).is_err() => {
                Err(self.unsupported(field, "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a number of heads that does not divide the width.
    pub(crate) fn heads(&self, field: &str, heads: usize) -> Result<()> {
        match heads > 0 && self.hidden_size.is_multiple_of(heads) {
            true => Ok(()),
            false => Err(self.unsupported(field, "a divisor of hidden_size")),
        }
    }

    /// The token that fills up a batch.
    pub fn pad_token_id(&self) -> usize {
        self.pad_token_id.unwrap_or(0)
    }

    /// The task of the checkpoint's own head, by the class that saved it.
    pub fn own_task(&self) -> Task {
        let class = self.architectures.iter().flatten().next().map_or("", String::as_str);
        let labels = if self.id2label.is_empty() { 2 } else { self.id2label.len() };
        [Task::ClassifySequence { labels }, Task::ClassifyTokens { labels }, Task::MaskedLm]
            .into_iter()
            .find(|task| class.ends_with(task.class_suffix()))
            .unwrap_or(Task::Encode)
    }

    /// Names of the labels, in order.
    pub fn labels(&self) -> Vec<String> {
        (0..self.id2label.len())
            .filter_map(|i| self.id2label.get(&i.to_string()).cloned())
            .collect()
    }

    /// The class in transformers for a task: `BertForSequenceClassification`.
    pub fn class_name(&self, task: Task) -> String {
        format!("{}{}", self.model_type.class(), task.class_suffix())
    }

    /// `config.json` for the same body with another head.
    pub fn to_json(&self, task: Task, labels: &[String]) -> Value {
        let mut raw = self.raw.clone();
        let count = match task {
            Task::Encode | Task::MaskedLm => 0,
            Task::ClassifySequence { labels } | Task::ClassifyTokens { labels } => labels,
        };
        raw.insert("architectures".into(), json!([self.class_name(task)]));
        if count > 0 {
            let name = |i: usize| labels.get(i).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
            let ids = (0..count).map(|i| (i.to_string(), json!(name(i)))).collect();
            let back = (0..count).map(|i| (name(i), json!(i))).collect();
            raw.insert("id2label".into(), Value::Object(ids));
            raw.insert("label2id".into(), Value::Object(back));
        }
        Value::Object(raw)
    }
}
