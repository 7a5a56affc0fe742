//! `config.json`.

mod checks;
mod defaults;
mod own_task;
mod values;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::defaults::WIDTHS;
pub(crate) use self::values::{id, read, share, switch, token_id};
use crate::checkpoint::is_there;
use crate::{Error, ProblemType, Result, config_fields};

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
    /// DistilBERT (Sanh et al. 2019, arXiv 1910.01108).
    #[serde(rename = "distilbert")]
    DistilBert,
    /// GPT-2 (Radford et al. 2019).
    Gpt2,
    /// Llama (Touvron et al. 2023, arXiv 2302.13971), and models of its architecture such as
    /// SmolLM2.
    Llama,
    /// Mistral (Jiang et al. 2023, arXiv 2310.06825).
    Mistral,
    /// Qwen2 (Yang et al. 2024, arXiv 2407.10671).
    Qwen2,
    /// T5 (Raffel et al. 2020, arXiv 1910.10683) and Flan-T5.
    T5,
    /// BART (Lewis et al. 2020, arXiv 1910.13461).
    Bart,
}

impl Architecture {
    /// All of them.
    const ALL: &[Self] = &[
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::DistilBert,
        Self::Gpt2,
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::T5,
        Self::Bart,
    ];

    /// The name of the body inside a task model's checkpoint: `bert`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta | Self::XlmRoberta => "roberta",
            Self::DistilBert => "distilbert",
            Self::Gpt2 | Self::T5 => "transformer",
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Bart => "model",
        }
    }

    /// `model_type` in `config.json`: `bert`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::DistilBert => "distilbert",
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::T5 => "t5",
            Self::Bart => "bart",
        }
    }

    /// The class name's first part: `Bert`.
    fn class(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Roberta => "Roberta",
            Self::XlmRoberta => "XLMRoberta",
            Self::DistilBert => "DistilBert",
            Self::Gpt2 => "GPT2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::T5 => "T5",
            Self::Bart => "Bart",
        }
    }

    /// What the body is called in a model for a task, and a dot: `bert.`; nothing where it has no
    /// name of its own.
    pub(crate) fn own_prefix(self, task: Task) -> String {
        match (self, task) {
            // A bare model's modules have no prefix, in the reference as here.
            (_, Task::Encode) | (Self::T5, Task::Seq2SeqLm) => String::new(),
            _ => format!("{}.", self.prefix()),
        }
    }

    /// The tasks that a model of this architecture can have, with this number of labels.
    fn tasks(self, labels: usize) -> Vec<Task> {
        let (sequence, tokens) =
            (Task::ClassifySequence { labels }, Task::ClassifyTokens { labels });
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta | Self::DistilBert => {
                vec![sequence, tokens, Task::QuestionAnswering, Task::MaskedLm, Task::Encode]
            }
            Self::Gpt2 | Self::Llama | Self::Mistral | Self::Qwen2 => {
                vec![sequence, tokens, Task::CausalLm, Task::Encode]
            }
            Self::T5 => vec![sequence, tokens, Task::Seq2SeqLm, Task::Encode],
            Self::Bart => vec![sequence, Task::Seq2SeqLm, Task::Encode],
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
    /// Two logits for each token: that an answer begins there, and that it ends there.
    QuestionAnswering,
    /// A logit of each word for each token, from what is on both sides of it.
    MaskedLm,
    /// A logit of each word for each token, of which the next is predicted.
    CausalLm,
    /// The same for the decoder's tokens, which follow from those of the encoder.
    Seq2SeqLm,
}

impl Task {
    /// The end of a class's name in transformers: `ForMaskedLM`.
    fn class_suffix(self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Encode, _) => "Model",
            (Self::ClassifySequence { .. }, _) => "ForSequenceClassification",
            (Self::ClassifyTokens { .. }, _) => "ForTokenClassification",
            (Self::QuestionAnswering, _) => "ForQuestionAnswering",
            (Self::MaskedLm, _) => "ForMaskedLM",
            (Self::CausalLm, Architecture::Gpt2) => "LMHeadModel",
            (Self::CausalLm, _) => "ForCausalLM",
            (Self::Seq2SeqLm, _) => "ForConditionalGeneration",
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
    #[serde(default, deserialize_with = "token_id")]
    pub pad_token_id: Option<usize>,
    /// Names of the labels by index, if the checkpoint has a head.
    #[serde(default, deserialize_with = "values::labels")]
    pub id2label: BTreeMap<String, String>,
    /// The class that the checkpoint was saved from.
    #[serde(default)]
    pub architectures: Option<Vec<String>>,
    /// As they are in the file.
    #[serde(skip)]
    raw: Map<String, Value>,
    /// With the defaults of those that the file leaves out.
    #[serde(skip)]
    all: Map<String, Value>,
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
        let path = if is_there(&path)? { &path } else { directory };
        Self::from_fields(config_fields(directory)?, path)
    }

    /// From the fields of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// If the fields are broken, or of an architecture that is not supported.
    pub fn from_fields(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let found = raw.get("model_type").and_then(Value::as_str);
        let architecture = Architecture::ALL.iter().find(|known| found == Some(known.name()));
        let Some(architecture) = architecture else {
            let known: Vec<&str> = Architecture::ALL.iter().map(|known| known.name()).collect();
            return Err(Error::Unsupported {
                path: path.into(),
                field: "model_type".into(),
                value: raw.get("model_type").unwrap_or(&Value::Null).to_string(),
                supported: known.join(", "),
            });
        };
        let all = defaults::completed(*architecture, &raw);
        let mut fields = all.clone();
        if fields.contains_key(WIDTHS[0]) {
            // The common name is the one that counts.
            WIDTHS[1..].iter().for_each(|other| drop(fields.remove(*other)));
        }
        let config: Self = read(&fields, path)?;
        let config = Self { raw, all, path: path.into(), ..config };
        let width = WIDTHS.into_iter().find(|name| config.all.contains_key(*name));
        let (d, words) = (config.hidden_size, config.vocab_size);
        config.sizes(&[(width.unwrap_or(WIDTHS[0]), d), ("vocab_size", words)])?;
        Ok(config)
    }

    /// All fields, with the defaults of those that the file leaves out.
    pub(crate) fn fields(&self) -> &Map<String, Value> {
        &self.all
    }

    /// The fields that are an architecture's own.
    pub(crate) fn read<C: DeserializeOwned>(&self) -> Result<C> {
        let mut fields = self.all.clone();
        // They are for new heads; without a number, the default is as good.
        for deviation in ["initializer_range", "init_std"] {
            if self.field(deviation).is_none() {
                fields.remove(deviation);
            }
        }
        read(&fields, &self.path)
    }

    /// A field as it is in the file, or its default; `None` where it has none, or is `null`.
    pub(crate) fn field(&self, field: &str) -> Option<&Value> {
        self.all.get(field).filter(|value| !value.is_null())
    }

    /// The token that fills up a batch.
    pub fn pad_token_id(&self) -> usize {
        self.pad_token_id.unwrap_or(0)
    }

    /// The token that ends a text, if there is one; the first of several.
    pub fn eos_token_id(&self) -> Option<u32> {
        let id = match self.field("eos_token_id")? {
            Value::Array(ids) => ids.first()?.as_u64(),
            id => id.as_u64(),
        };
        u32::try_from(id?).ok()
    }

    /// The token that a text begins with, if there is one.
    pub fn bos_token_id(&self) -> Option<u32> {
        let id = self.field("bos_token_id").and_then(Value::as_u64);
        id.and_then(|id| u32::try_from(id).ok())
    }

    /// The token that the text of a decoder beside an encoder begins with.
    pub fn decoder_start_token_id(&self) -> Option<u32> {
        let id = self.field("decoder_start_token_id").and_then(Value::as_u64);
        id.and_then(|id| u32::try_from(id).ok()).or(match self.model_type {
            Architecture::T5 => Some(0),
            Architecture::Bart => Some(2),
            _ => None,
        })
    }

    /// The class that the checkpoint was saved from, if the configuration names one of transformers;
    /// somebody's own says nothing.
    fn saved_class(&self) -> Option<&str> {
        let class = self.architectures.iter().flatten().next()?;
        (class.ends_with("Model") || class.contains("For")).then_some(class)
    }

    /// Names of the labels, in order.
    pub fn labels(&self) -> Vec<String> {
        let name = |i: usize| self.id2label.get(&i.to_string()).cloned();
        (0..self.id2label.len()).map(|i| name(i).unwrap_or_else(|| unnamed(i))).collect()
    }

    /// The class in transformers for a task: `BertForSequenceClassification`.
    pub fn class_name(&self, task: Task) -> String {
        format!("{}{}", self.model_type.class(), task.class_suffix(self.model_type))
    }

    /// The same where a language model's head has a table of its own.
    pub fn untied(&self) -> Self {
        let mut untied = self.clone();
        for fields in [&mut untied.raw, &mut untied.all] {
            fields.insert("tie_word_embeddings".into(), json!(false));
        }
        untied
    }

    /// `config.json` for the same body with another head, its tensors in f32; `problem` is what the
    /// outputs for a text are, where that is not to be guessed from their number.
    pub fn to_json(&self, task: Task, labels: &[String], problem: Option<ProblemType>) -> Value {
        let mut raw = self.raw.clone();
        raw.insert("architectures".into(), json!([self.class_name(task)]));
        for field in ["dtype", "torch_dtype"] {
            raw.entry(field).and_modify(|dtype| *dtype = json!("float32"));
        }
        // They are of the head that was here.
        for field in ["num_labels", "problem_type"] {
            raw.remove(field);
        }
        if task == Task::QuestionAnswering {
            // It has two outputs, whatever the labels here were.
            ["id2label", "label2id"].iter().for_each(|labels| drop(raw.remove(*labels)));
        }
        if let Some(problem) = problem {
            raw.insert("problem_type".into(), json!(problem));
        }
        if let Some(count) = task.labels() {
            let name = |i: usize| labels.get(i).cloned().unwrap_or_else(|| unnamed(i));
            let ids = (0..count).map(|i| (i.to_string(), json!(name(i)))).collect();
            let back = (0..count).map(|i| (name(i), json!(i))).collect();
            raw.insert("id2label".into(), Value::Object(ids));
            raw.insert("label2id".into(), Value::Object(back));
        }
        Value::Object(raw)
    }
}

/// What a label without a name is called, as in transformers.
fn unnamed(label: impl Display) -> String {
    format!("LABEL_{label}")
}
