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
    /// Of one of the library's own heads: what it is.
    flexible: Option<FlexibleHead>,
}

/// The configuration of a head of the library's own.
#[derive(Deserialize)]
struct FlexibleHead {
    head_type: String,
    #[serde(default)]
    layers: Option<usize>,
    #[serde(default)]
    bias: bool,
    #[serde(default)]
    layer_norm: bool,
}

impl AdaptersHead {
    /// The head in `directory`, if there is one.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>> {
        let Some(weights) = existing(directory, HEAD_WEIGHTS) else { return Ok(None) };
        let config = directory.join(HEAD_CONFIG);
        let fields = if config.exists() { read_object(&config)? } else { Default::default() };
        let flexible = match fields.get("config") {
            None | Some(Value::Null) => None,
            Some(head) => {
                let head = serde_json::from_value(head.clone());
                Some(head.map_err(|error| Error::file(&config, error))?)
            }
        };
        Ok(Some(Self { weights, config, flexible }))
    }

    /// Whether it is one of the library's own, not transformers'.
    pub(super) fn is_flexible(&self) -> bool {
        self.flexible.is_some()
    }

    /// The task of a head of the library's own.
    pub(super) fn task(&self) -> Option<TaskType> {
        match self.flexible.as_ref()?.head_type.as_str() {
            "causal_lm" => Some(TaskType::CausalLm),
            "seq2seq_lm" => Some(TaskType::Seq2SeqLm),
            "classification" => Some(TaskType::SequenceClassification),
            "tagging" => Some(TaskType::TokenClassification),
            _ => None,
        }
    }

    /// Its tensors.
    pub(super) fn tensors(&self) -> Result<TensorMap> {
        read_tensors(&self.weights)
    }

    /// Refuses a head of the library's own that the model does not have: what the adapter was
    /// trained under would be lost.
    pub(super) fn check(&self, base: &Base) -> Result<()> {
        let Some(FlexibleHead { head_type, layers, bias, layer_norm }) = &self.flexible else {
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
        for (field, given) in [("bias", bias), ("layer_norm", layer_norm)] {
            if *given {
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
        Ok((AdaptersHead::open(directory.path())?.expect("it has a head"), directory))
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
