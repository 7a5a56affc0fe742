//! `config.json` of an encoder.

use std::collections::BTreeMap;
use std::path::Path;

use peft_core::Activation;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

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
    /// The name of the encoder inside a task model's checkpoint: `bert`.
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
}

/// The fields of an encoder's `config.json` that are read; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
pub struct EncoderConfig {
    /// The architecture.
    pub model_type: Architecture,
    /// Width `d` of the hidden states.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; each is `d / heads` wide.
    pub num_attention_heads: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Positions there are; RoBERTa's first two are not for text.
    pub max_position_embeddings: usize,
    /// Segments there are.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// The feed-forward network's activation.
    #[serde(default)]
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Dropout on hidden states, in training.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the head; `null`: as on hidden states.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// Standard deviation of a new head.
    #[serde(default = "fiftieth")]
    pub initializer_range: f64,
    /// The token that fills up a batch.
    #[serde(default)]
    pub pad_token_id: usize,
    /// Names of the labels by index, if the checkpoint has a head.
    #[serde(default)]
    pub id2label: BTreeMap<String, String>,
    /// The class that the checkpoint was saved from.
    #[serde(default)]
    pub architectures: Option<Vec<String>>,
    #[serde(skip)]
    raw: Map<String, Value>,
}

fn two() -> usize {
    2
}
fn layer_norm_eps() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}
fn fiftieth() -> f64 {
    0.02
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If the file is missing or broken, or asks for something not supported, which is named.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let raw = serde_json::from_str(&text)
            .map_err(|e| Error::file(path, format!("not a JSON object: {e}")))?;
        Self::from_fields(raw, path)
    }

    /// From the fields of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// If the fields are broken, or ask for something not supported, which is named.
    pub fn from_fields(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let unsupported = |field: &str, supported: &str| Error::Unsupported {
            path: path.into(),
            field: field.into(),
            value: raw.get(field).unwrap_or(&Value::Null).to_string(),
            supported: supported.into(),
        };
        let known = ["bert", "roberta", "xlm-roberta"];
        if !raw.get("model_type").and_then(Value::as_str).is_some_and(|t| known.contains(&t)) {
            return Err(unsupported("model_type", &known.join(", ")));
        }
        if let Some(positions) = raw.get("position_embedding_type")
            && positions != "absolute"
        {
            return Err(unsupported("position_embedding_type", "absolute"));
        }
        if raw.get("is_decoder") == Some(&Value::Bool(true)) {
            return Err(unsupported("is_decoder", "false"));
        }
        if let Some(activation) = raw.get("hidden_act")
            && Activation::deserialize(activation).is_err()
        {
            return Err(unsupported(
                "hidden_act",
                "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh",
            ));
        }
        let mut config: Self =
            serde_json::from_value(Value::Object(raw.clone())).map_err(|e| Error::file(path, e))?;
        if config.num_attention_heads == 0
            || !config.hidden_size.is_multiple_of(config.num_attention_heads)
        {
            return Err(unsupported("num_attention_heads", "a divisor of hidden_size"));
        }
        config.raw = raw;
        Ok(config)
    }

    /// The task of the checkpoint's own head, by the class that saved it.
    pub fn own_task(&self) -> Task {
        let class = self.architectures.iter().flatten().next().map_or("", String::as_str);
        let labels = self.num_labels();
        if class.ends_with("ForSequenceClassification") {
            Task::ClassifySequence { labels }
        } else if class.ends_with("ForTokenClassification") {
            Task::ClassifyTokens { labels }
        } else {
            Task::Encode
        }
    }

    fn num_labels(&self) -> usize {
        if self.id2label.is_empty() { 2 } else { self.id2label.len() }
    }

    /// Names of the labels, in order.
    pub fn labels(&self) -> Vec<String> {
        (0..self.id2label.len())
            .filter_map(|i| self.id2label.get(&i.to_string()).cloned())
            .collect()
    }

    /// The class in transformers for a task: `BertForSequenceClassification`.
    pub fn class_name(&self, task: Task) -> String {
        let class = self.model_type.class();
        match task {
            Task::Encode => format!("{class}Model"),
            Task::ClassifySequence { .. } => format!("{class}ForSequenceClassification"),
            Task::ClassifyTokens { .. } => format!("{class}ForTokenClassification"),
        }
    }

    /// `config.json` for the same encoder with another head.
    pub fn to_json(&self, task: Task, labels: &[String]) -> Value {
        let mut raw = self.raw.clone();
        let count = match task {
            Task::Encode => 0,
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
