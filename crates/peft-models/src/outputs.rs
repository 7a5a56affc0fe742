//! Heads that end in a number of outputs for each text or token: where that number stands, and what
//! it means.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Architecture, ModelConfig, Result, Task};

/// What the outputs for a text are, as `problem_type` says it in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// A number each.
    Regression,
    /// The logits of labels, of which a text has one.
    SingleLabelClassification,
    /// The logits of labels, of which a text has any number.
    MultiLabelClassification,
}

impl ProblemType {
    const NAMES: &str = "regression, single_label_classification, multi_label_classification";
}

impl fmt::Display for Task {
    /// What it is called, with the number of outputs: `sequence classification (2 outputs)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.labels() {
            None => f.write_str(self.kind()),
            Some(1) => write!(f, "{} (1 output)", self.kind()),
            Some(labels) => write!(f, "{} ({labels} outputs)", self.kind()),
        }
    }
}

impl Task {
    /// What it is called, whatever the number of outputs.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Encode => "feature extraction",
            Self::ClassifySequence { .. } => "sequence classification",
            Self::ClassifyTokens { .. } => "token classification",
            Self::QuestionAnswering => "question answering",
            Self::MaskedLm => "masked language modelling",
            Self::CausalLm => "causal language modelling",
            Self::Seq2SeqLm => "sequence-to-sequence language modelling",
        }
    }

    /// The number of labels, if it has labels.
    pub fn labels(self) -> Option<usize> {
        match self {
            Self::ClassifySequence { labels } | Self::ClassifyTokens { labels } => Some(labels),
            _ => None,
        }
    }

    /// The same with another number of labels, if it has labels.
    pub fn with_labels(self, labels: usize) -> Self {
        match self {
            Self::ClassifySequence { .. } => Self::ClassifySequence { labels },
            Self::ClassifyTokens { .. } => Self::ClassifyTokens { labels },
            _ => self,
        }
    }
}

impl Architecture {
    /// The linear layer at the end of a classifier's head, as transformers calls it: it has as many
    /// outputs as there are labels.
    pub fn output_layer(self, task: Task) -> Option<&'static str> {
        let (sequence, tokens) = match self {
            Self::Bert | Self::DistilBert => ("classifier", "classifier"),
            Self::Roberta | Self::XlmRoberta => ("classifier.out_proj", "classifier"),
            Self::Gpt2 => ("score", "classifier"),
            Self::Llama | Self::Mistral | Self::Qwen2 => ("score", "score"),
            Self::T5 | Self::Bart => ("classification_head.out_proj", "classifier"),
        };
        match task {
            Task::ClassifySequence { .. } => Some(sequence),
            Task::ClassifyTokens { .. } => Some(tokens),
            _ => None,
        }
    }
}

impl ModelConfig {
    /// The number of labels of the checkpoint's own head: as many as have names, or else
    /// `num_labels`, or else two, as in transformers.
    pub fn num_labels(&self) -> usize {
        let number = self.field("num_labels").and_then(Value::as_i64);
        match self.id2label.len() {
            0 => number.map_or(2, |number| usize::try_from(number).unwrap_or(0)),
            named => named,
        }
    }

    /// What the outputs of the checkpoint's own head are, where that is said.
    ///
    /// # Errors
    /// If transformers has no such type.
    pub fn problem_type(&self) -> Result<Option<ProblemType>> {
        let Some(found) = self.field("problem_type") else { return Ok(None) };
        let known = ProblemType::deserialize(found);
        known.map(Some).map_err(|_| self.unsupported("problem_type", ProblemType::NAMES))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn config(fields: Value) -> ModelConfig {
        let mut all = json!({"model_type": "bert", "hidden_size": 8, "vocab_size": 11,
                             "architectures": ["BertForSequenceClassification"]});
        let Some(object) = all.as_object_mut() else { panic!("an object") };
        object.extend(fields.as_object().cloned().unwrap_or_default());
        ModelConfig::from_fields(object.clone(), Path::new("config.json")).expect("a known model")
    }

    // As `PretrainedConfig.num_labels` of transformers 4.57.
    #[test]
    fn the_names_of_labels_come_before_their_number() {
        let named = json!({"0": "a", "1": "b", "2": "c"});
        for (fields, expected) in [
            (json!({}), 2),
            (json!({"num_labels": 5}), 5),
            (json!({"num_labels": 1}), 1),
            (json!({"num_labels": null, "id2label": {}}), 2),
            (json!({"num_labels": 5, "id2label": named}), 3),
        ] {
            let config = config(fields.clone());
            let task = Task::ClassifySequence { labels: expected };
            assert_eq!(config.own_task(), task, "{fields}");
        }
    }

    #[test]
    fn a_type_of_problem_that_is_not_known_is_named() {
        for name in ProblemType::NAMES.split(", ") {
            let found = config(json!({"problem_type": name})).problem_type().expect(name);
            assert_eq!(json!(found), json!(name));
        }
        assert_eq!(config(json!({"problem_type": null})).problem_type().expect("none"), None);
        let error = config(json!({"problem_type": "ranking"})).problem_type().expect_err("unknown");
        let shown = "config.json: problem_type = \"ranking\" is not supported; supported: ";
        assert!(error.to_string().starts_with(shown), "{error}");
    }
}
