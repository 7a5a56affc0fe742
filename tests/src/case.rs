//! One recorded case.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use peft_core::{Base, BoxedMethod, Exchange, Method, TensorMap, TensorSpec, num_trainable};
use peft_format::{Adapter, Composition, Error, Registry, read_safetensors};
use peft_models::{Model, ModelInput};
use serde::Deserialize;

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
    /// How the adapters of the case are composed, as the reference prints it:
    /// `Stack[lang, task]`.
    pub active: Option<String>,
    /// The number of values that the reference counts as trained.
    pub trainable: Option<usize>,
    /// The weight decay of a curve.
    pub weight_decay: f32,
}

/// What is read of a `meta.json`.
#[derive(Deserialize)]
struct Meta {
    arch: String,
    active: Option<String>,
    trainable: Option<usize>,
    #[serde(default)]
    optimizer: String,
}

impl Meta {
    /// The number that a curve's optimizer is described with; 0.01 unless it says otherwise.
    fn weight_decay(&self) -> f32 {
        let (_, behind) = self.optimizer.split_once("weight decay ").unwrap_or_default();
        let number = behind.split([',', ' ']).next().unwrap_or_default();
        number.parse().unwrap_or(0.01)
    }
}

impl Case {
    /// The case in `directory`, one of those under `root`.
    ///
    /// # Errors
    /// Why its `meta.json` cannot be read.
    pub fn open(root: &Path, name: &str, directory: PathBuf) -> Result<Self, String> {
        let path = directory.join("meta.json");
        let of = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| of(error.to_string()))?;
        let meta: Meta = serde_json::from_str(&text).map_err(|error| of(error.to_string()))?;
        let weight_decay = meta.weight_decay();
        let Meta { arch: architecture, active, trainable, .. } = meta;
        // What was converted to a plain LoRA has twice the rank that was trained.
        let trainable = trainable.filter(|_| !name.ends_with("-converted"));
        let (name, root) = (name.to_string(), root.to_path_buf());
        Ok(Self { name, directory, root, architecture, active, trainable, weight_decay })
    }

    /// The base model, or why there is none.
    pub fn base(&self, device: &Device) -> Result<Model, Outcome> {
        let directory = self.root.join("bases").join(&self.architecture);
        match Model::load(&directory, None, device) {
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
        model: &Model,
        device: &Device,
    ) -> Result<Adapter, Outcome> {
        let directory = self.directory.join(folder);
        Adapter::load(&directory, registry, model.base(), device).map_err(|error| match error {
            Error::UnknownMethod { .. } | Error::Core(peft_core::Error::Unsupported { .. }) => {
                Outcome::NotSupported(error.to_string())
            }
            error => Outcome::Failed(error.to_string()),
        })
    }

    /// The adapters of the case, composed as `active` says, and how many values all of them train
    /// when they are new, the head's apart where the reference leaves it out.
    pub fn composed(
        &self,
        registry: &Registry,
        model: &Model,
        device: &Device,
    ) -> Result<(Adapter, usize), Outcome> {
        let failed = |error: Error| Outcome::Failed(error.to_string());
        let fresh = |adapter: &Adapter| {
            let new = match Adapter::new(adapter.config.clone(), model.base(), device) {
                // The reference does not mind a name among its targets that is nowhere.
                Err(Error::Core(peft_core::Error::NoMatch { .. })) => adapter.clone(),
                new => new.map_err(failed)?,
            };
            let (head, method) = new.parts();
            // adapter-hub/adapters counts without the head, HF PEFT with it.
            let head = head.filter(|_| self.active.is_none());
            let of_head = head.map_or(0, |head| num_trainable(&head));
            Ok(of_head + counted_as_trained(method, model.base()))
        };
        let (how, names) = match self.active.as_deref().and_then(|a| a.split_once('[')) {
            Some((how, names)) => (how, names.trim_end_matches(']').split(", ").collect()),
            None => ("Stack", vec!["task"]),
        };
        if names == ["task"] {
            let adapter = self.adapter(".", registry, model, device)?;
            let trainable = fresh(&adapter)?;
            return Ok((adapter, trainable));
        }
        let adapters: Vec<Adapter> = names
            .iter()
            .map(|name| self.adapter(name, registry, model, device))
            .collect::<Result<_, _>>()?;
        let are_loras = |all: &[Adapter]| all.iter().all(|a| a.config.method.name() == "lora");
        if how == "Average" {
            let why = "the reference divides an average by the number of its adapters twice";
            return Err(Outcome::NotSupported(why.into()));
        }
        if how == "Stack" && are_loras(&adapters) {
            let why = "the reference gives the second of stacked LoRAs what the first adds";
            return Err(Outcome::NotSupported(why.into()));
        }
        let composition = match how {
            "Stack" => Composition::Stack,
            "Fuse" => Composition::Fuse,
            "Parallel" => Composition::Parallel,
            other => return Err(Outcome::NotSupported(format!("the composition {other}"))),
        };
        let fusion = (composition == Composition::Fuse)
            .then(|| self.adapter("fusion", registry, model, device))
            .transpose()?;
        let all = adapters.iter().chain(&fusion);
        let trainable = all.map(fresh).sum::<Result<usize, Outcome>>()?;
        Ok((composition.of(adapters, fusion, model.base()).map_err(failed)?, trainable))
    }

    /// How many adapters the case has side by side, each over the whole batch; 1 where they are one.
    pub fn side_by_side(&self) -> usize {
        match self.active.as_deref().and_then(|active| active.strip_prefix("Parallel[")) {
            Some(names) => names.split(", ").count(),
            None => 1,
        }
    }

    /// The recorded tensors.
    pub fn tensors(&self, file: &str) -> Result<TensorMap, Outcome> {
        read_safetensors(&self.directory.join(file)).map_err(|e| Outcome::Failed(e.to_string()))
    }
}

/// The values that the reference counts as trained: those that are, and the unit of ReFT for last tokens
/// where there are none, which no token reaches.
pub fn counted_as_trained(mut method: BoxedMethod, base: &Base) -> usize {
    let trained = num_trainable(&method);
    let mut tensors = Exchange::describe();
    method.exchange(&mut tensors, base);
    let is_idle = |tensor: &TensorSpec| {
        let is_of_last = tensor.key.contains(".reft.1.") && !tensor.key.ends_with(".base");
        is_of_last && !tensor.trainable
    };
    let specs = tensors.into_specs();
    trained + specs.iter().filter(|t| is_idle(t)).map(TensorSpec::num_values).sum::<usize>()
}

/// The recorded input.
pub fn input(tensors: &TensorMap, device: &Device) -> Result<ModelInput, Outcome> {
    let get = |name: &str| tensors.get(name).cloned();
    let ids = get("input_ids").ok_or_else(|| Outcome::Failed("no input_ids".into()))?;
    let of = |ids, mask, segments| ModelInput::from_data(ids, mask, segments, device);
    of(ids, get("attention_mask"), get("token_type_ids"))
        .and_then(|input| match get("decoder_input_ids") {
            Some(ids) => input.with_decoder(of(ids, get("decoder_attention_mask"), None)?),
            None => Ok(input),
        })
        // Recorded ones count tokens.
        .map(|input| match tensors.contains_key("position_ids") {
            true => input.counting_tokens(),
            false => input,
        })
        .map_err(|error| Outcome::Failed(error.to_string()))
}

/// Values of a tensor.
pub fn values(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_into_vec().expect("converted to f32")
}
