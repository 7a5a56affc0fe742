//! The head that adapter-hub/adapters saves beside an adapter.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use peft_core::{Base, Role, SiteKind, TensorMap};
use serde::Deserialize;
use serde_json::Value;

use super::{existing, read_object};
use crate::files::read_tensors;
use crate::{Error, Result, TaskType};

pub(super) const HEAD_CONFIG: &str = "head_config.json";
pub(super) const HEAD_WEIGHTS: [&str; 2] = ["model_head.safetensors", "pytorch_model_head.bin"];

/// How far the weights of one head may lie apart, over the largest: that of the model may be of
/// half precision.
const ROUNDING: f32 = 1e-2;

/// The head beside an adapter.
pub(super) struct AdaptersHead {
    weights: PathBuf,
    config: PathBuf,
    kind: Kind,
}

enum Kind {
    /// The head of a class of transformers.
    Transformers,
    /// One of the library's own.
    Flexible(FlexibleHead),
    /// One of the library's own that computes what a class of transformers does.
    Same(FlexibleHead, &'static [Renamed]),
}

/// The index of a layer in the library's head, and the module that it is in transformers' model.
type Renamed = (usize, &'static str);

/// The configuration of a head of the library's own: `layers` linear layers with dropout before each
/// and an activation behind each but the last, over the first token or every token.
#[derive(Deserialize)]
struct FlexibleHead {
    head_type: String,
    #[serde(default)]
    layers: Option<usize>,
    bias: Option<bool>,
    #[serde(default)]
    layer_norm: bool,
    #[serde(default)]
    use_pooler: bool,
    activation_function: Option<String>,
}

impl FlexibleHead {
    /// The task of it.
    fn task(&self) -> Option<TaskType> {
        match self.head_type.as_str() {
            "causal_lm" => Some(TaskType::CausalLm),
            "seq2seq_lm" => Some(TaskType::Seq2SeqLm),
            "classification" => Some(TaskType::SequenceClassification),
            "tagging" => Some(TaskType::TokenClassification),
            "question_answering" => Some(TaskType::QuestionAnswering),
            _ => None,
        }
    }

    /// What it is in transformers' model of this type, if there it is the same function.
    fn of_transformers(&self, model_type: &str) -> Option<&'static [Renamed]> {
        if self.bias == Some(false) || self.layer_norm {
            return None;
        }
        let is_tanh = self.activation_function.as_deref() == Some("tanh");
        Some(match (self.task()?, self.layers?, self.use_pooler, model_type) {
            // BERT's pooler is a layer with tanh over the first token.
            (TaskType::SequenceClassification, 2, false, "bert") if is_tanh => {
                &[(1, "bert.pooler.dense"), (4, "classifier")]
            }
            (TaskType::SequenceClassification, 1, true, "bert") => &[(1, "classifier")],
            (TaskType::SequenceClassification, 2, false, "roberta" | "xlm-roberta") if is_tanh => {
                &[(1, "classifier.dense"), (4, "classifier.out_proj")]
            }
            (
                TaskType::TokenClassification,
                1,
                _,
                "bert" | "roberta" | "xlm-roberta" | "distilbert",
            ) => &[(1, "classifier")],
            (
                TaskType::QuestionAnswering,
                1,
                _,
                "bert" | "roberta" | "xlm-roberta" | "distilbert",
            ) => &[(1, "qa_outputs")],
            _ => return None,
        })
    }
}

impl AdaptersHead {
    /// The head in `directory`, of a model of this type, if there is one.
    pub(super) fn open(directory: &Path, model_type: &str) -> Result<Option<Self>> {
        let Some(weights) = existing(directory, HEAD_WEIGHTS) else { return Ok(None) };
        let config = directory.join(HEAD_CONFIG);
        let fields = if config.exists() { read_object(&config)? } else { Default::default() };
        let kind = match fields.get("config") {
            None | Some(Value::Null) => Kind::Transformers,
            Some(head) => {
                let head = serde_json::from_value(head.clone());
                let head: FlexibleHead = head.map_err(|error| Error::file(&config, error))?;
                match head.of_transformers(model_type) {
                    Some(renamed) => Kind::Same(head, renamed),
                    None => Kind::Flexible(head),
                }
            }
        };
        Ok(Some(Self { weights, config, kind }))
    }

    /// Whether it is one of the library's own, and not one that transformers has.
    pub(super) fn is_flexible(&self) -> bool {
        matches!(self.kind, Kind::Flexible(_))
    }

    /// The task of a head of the library's own.
    pub(super) fn task(&self) -> Option<TaskType> {
        match &self.kind {
            Kind::Transformers => None,
            Kind::Flexible(head) | Kind::Same(head, _) => head.task(),
        }
    }

    /// The modules that are saved in it beside those of a head in transformers: what is of the body
    /// there.
    pub(super) fn of_body(&self) -> impl Iterator<Item = String> {
        let renamed = match &self.kind {
            Kind::Same(_, renamed) => *renamed,
            _ => &[],
        };
        let poolers = renamed.iter().filter(|(_, module)| module.ends_with("pooler.dense"));
        poolers.map(|_| "pooler".to_string())
    }

    /// Its tensors, under transformers' names where it has them.
    pub(super) fn tensors(&self) -> Result<TensorMap> {
        let tensors = read_tensors(&self.weights)?;
        let Kind::Same(_, renamed) = &self.kind else { return Ok(tensors) };
        // `heads.{adapter}.{index}.weight`
        let name = |key: &str| {
            let (path, leaf) = key.strip_prefix("heads.")?.rsplit_once('.')?;
            let index: usize = path.rsplit('.').next()?.parse().ok()?;
            let (_, module) = renamed.iter().find(|(of_module, _)| *of_module == index)?;
            Some(format!("{module}.{leaf}"))
        };
        Ok(tensors.into_iter().map(|(key, data)| (name(&key).unwrap_or(key), data)).collect())
    }

    /// Refuses a head of the library's own that the model does not have: what the adapter was
    /// trained under would be lost.
    pub(super) fn check(&self, base: &Base) -> Result<()> {
        let Kind::Flexible(FlexibleHead { head_type, layers, bias, layer_norm, .. }) = &self.kind
        else {
            return Ok(());
        };
        let unsupported = |field: &str, value: String| {
            let origin = self.config.display().to_string();
            Err(peft_core::Error::Unsupported { field: field.into(), value, origin }.into())
        };
        if !["causal_lm", "seq2seq_lm"].contains(&head_type.as_str()) {
            return unsupported("head_type", format!("{head_type:?}"));
        }
        if *layers != Some(1) {
            let layers = layers.map_or("null".into(), |layers| layers.to_string());
            return unsupported("layers", layers);
        }
        for (field, given) in [("bias", *bias == Some(true)), ("layer_norm", *layer_norm)] {
            if given {
                return unsupported(field, "true".into());
            }
        }
        let mut heads = base
            .iter()
            .filter(|entry| entry.site.kind == SiteKind::Linear && entry.site.role == Role::Head);
        let own = heads.find_map(|entry| entry.weight.as_ref());
        let saved = self.tensors()?.into_values().next();
        match (own, saved) {
            (Some(own), Some(saved)) if is_same(own.dense(), &saved) => Ok(()),
            _ => Err(Error::file(&self.weights, "its head is not that of the model")),
        }
    }
}

/// Whether `[d, words]` is what a file holds as `[words, d]`.
fn is_same(own: Tensor<2>, saved: &TensorData) -> bool {
    let [d, words] = own.dims();
    if saved.shape().to_vec() != [words, d] {
        return false;
    }
    let saved = Tensor::<2>::from_data(saved.clone().convert::<f32>(), &own.device()).transpose();
    let largest: f32 = saved.clone().abs().max().into_scalar();
    let distance: f32 = (own - saved).abs().max().into_scalar();
    distance <= ROUNDING * largest
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde_json::json;

    use super::*;
    use crate::write_safetensors;

    const SHAPE: [usize; 2] = [5, 3];

    fn table(first: f32) -> TensorData {
        let values: Vec<f32> = (0..15).map(|value| first + value as f32).collect();
        TensorData::new(values, SHAPE)
    }

    /// A model whose head has the words of `table(0)`.
    fn base() -> Base {
        let device = Device::default();
        let mut base = Base::new(&device);
        let weight = Tensor::<2>::from_data(table(0.0), &device).transpose();
        base.linear("lm_head", Role::Head, None, weight, None);
        base
    }

    fn head(fields: Value, table: TensorData) -> Result<(AdaptersHead, tempfile::TempDir)> {
        let directory = tempfile::tempdir().expect("a directory");
        let config = json!({ "config": fields }).to_string();
        std::fs::write(directory.path().join(HEAD_CONFIG), config).expect("written");
        let tensors = TensorMap::from([("heads.it.0.weight".to_string(), table)]);
        write_safetensors(&directory.path().join(HEAD_WEIGHTS[0]), &tensors)?;
        Ok((AdaptersHead::open(directory.path(), "bert")?.expect("it has a head"), directory))
    }

    #[test]
    fn the_head_of_the_model_itself_is_passed_over() {
        let fields = json!({ "head_type": "causal_lm", "layers": 1, "bias": false });
        let (head, _directory) = head(fields, table(0.0)).expect("it can be read");
        head.check(&base()).expect("it is that of the model");
        assert!(head.is_flexible());
        assert_eq!(head.task(), Some(TaskType::CausalLm));
    }

    #[test]
    fn any_other_head_is_refused_by_what_it_is() {
        for (fields, words, expected) in [
            (json!({ "head_type": "classification", "layers": 2 }), 0.0, "head_type"),
            (json!({ "head_type": "masked_lm", "layers": 2 }), 0.0, "head_type"),
            (json!({ "head_type": "causal_lm", "layers": 2 }), 0.0, "layers = 2"),
            (json!({ "head_type": "causal_lm", "layers": 1, "bias": true }), 0.0, "bias"),
            (json!({ "head_type": "causal_lm", "layers": 1 }), 1.0, "not that of the model"),
        ] {
            let (head, _directory) = head(fields.clone(), table(words)).expect("it can be read");
            let error = head.check(&base()).expect_err("it is another head").to_string();
            assert!(error.contains(expected), "{fields}: {error}");
        }
    }

    #[test]
    fn a_head_of_transformers_has_no_task_of_its_own() {
        let (head, _directory) = head(Value::Null, table(0.0)).expect("it can be read");
        assert!(!head.is_flexible());
        assert_eq!(head.task(), None);
        head.check(&base()).expect("it is read by name");
    }
}
