//! One recorded case.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use peft_core::{Adapter, AdapterConfig, Registry, TensorMap, read_safetensors};
use peft_models::{Encoder, EncoderInput};
use serde_json::Value;

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It agrees; what was compared, and how near it was.
    Passed(String),
    /// It does not.
    Failed(String),
    /// A method, architecture or file format that the workspace does not have.
    NotSupported(String),
}

/// A folder with a `meta.json`.
#[derive(Debug, Clone)]
pub struct Case {
    /// `peft/bert-lora`.
    pub name: String,
    /// The folder.
    pub directory: PathBuf,
    /// The folder of all cases.
    pub root: PathBuf,
    /// The base's name.
    pub architecture: String,
}

impl Case {
    /// The cases of one kind (`peft`, `adapters`, `curves`, `bases`) under `root`, by name.
    pub fn all(root: &Path, kind: &str) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(root.join(kind)) else { return Vec::new() };
        let mut cases: Vec<Self> = entries
            .filter_map(|entry| {
                let directory = entry.ok()?.path();
                let meta = std::fs::read_to_string(directory.join("meta.json")).ok()?;
                let meta: Value = serde_json::from_str(&meta).ok()?;
                let name = format!("{kind}/{}", directory.file_name()?.to_str()?);
                let architecture = meta.get("arch")?.as_str()?.to_string();
                Some(Self { name, directory, root: root.into(), architecture })
            })
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    /// The base model, or why there is none.
    pub fn base(&self, device: &Device) -> Result<Encoder, Outcome> {
        let directory = self.root.join("bases").join(&self.architecture);
        match Encoder::load(&directory, None, device) {
            Ok((model, _)) => Ok(model),
            Err(error @ peft_models::Error::Unsupported { .. }) => {
                Err(Outcome::NotSupported(error.to_string()))
            }
            Err(error) => Err(Outcome::Failed(error.to_string())),
        }
    }

    /// The adapter in `folder` of the case, or why there is none.
    pub fn adapter(
        &self,
        folder: &str,
        registry: &Registry,
        model: &Encoder,
        device: &Device,
    ) -> Result<Adapter, Outcome> {
        let directory = self.directory.join(folder);
        let config = AdapterConfig::load(&directory.join(peft_core::ADAPTER_CONFIG), registry);
        if let Err(
            error @ (peft_core::Error::UnknownMethod { .. }
            | peft_core::Error::Unsupported { .. }
            | peft_core::Error::File { .. }),
        ) = config
        {
            return Err(Outcome::NotSupported(error.to_string()));
        }
        Adapter::load(&directory, registry, model.base(), device)
            .map_err(|error| Outcome::Failed(error.to_string()))
    }

    /// The recorded tensors.
    pub fn tensors(&self, file: &str) -> Result<TensorMap, Outcome> {
        read_safetensors(&self.directory.join(file)).map_err(|e| Outcome::Failed(e.to_string()))
    }
}

/// The recorded input.
pub fn input(tensors: &TensorMap, device: &Device) -> Result<EncoderInput, Outcome> {
    let get = |name: &str| tensors.get(name).cloned();
    let ids = get("input_ids").ok_or_else(|| Outcome::Failed("no input_ids".into()))?;
    EncoderInput::from_data(ids, get("attention_mask"), get("token_type_ids"), device)
        .map_err(|error| Outcome::Failed(error.to_string()))
}

/// Values of a tensor.
pub fn values(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_into_vec().expect("converted to f32")
}
