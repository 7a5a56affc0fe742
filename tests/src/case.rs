//! One recorded case.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use peft_core::{Base, BoxedMethod, Exchange, Method, Slots, TensorMap, TensorSpec, num_trainable};
use peft_format::{Adapter, Composition, Error, Registry, read_safetensors};
use peft_models::{Model, ModelInput};
use serde::Deserialize;
use serde_json::{Map, Value};
use tempfile::TempDir;

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
    /// What a curve was trained with.
    pub optimizer: Optimizer,
    /// The numbers of a composition.
    weights: Vec<f64>,
    splits: Vec<usize>,
    batch_sizes: Vec<usize>,
    /// The names of the adapters, where there are several.
    pub names: Vec<String>,
}

/// What is read of a `meta.json`.
#[derive(Deserialize)]
struct Meta {
    arch: String,
    active: Option<String>,
    trainable: Option<usize>,
    #[serde(default)]
    optimizer: String,
    #[serde(default)]
    weights: Vec<f64>,
    #[serde(default)]
    splits: Vec<usize>,
    #[serde(default)]
    batch_sizes: Vec<usize>,
    #[serde(default)]
    names: Vec<String>,
}

/// AdamW as a case describes it.
#[derive(Debug, Clone)]
pub struct Optimizer {
    /// What is added to the denominator.
    pub epsilon: f32,
    /// The decay of weights.
    pub weight_decay: f32,
    /// Fields of the method that stand for what the reference does in an optimizer.
    settings: Map<String, Value>,
}

impl Optimizer {
    /// 1e-8 and 0.01 unless the text says otherwise.
    fn described(text: &str) -> Self {
        let behind = |name: &str| -> Option<f64> {
            let (_, behind) = text.split_once(name)?;
            behind.split([',', ' ', ':']).next()?.parse().ok()
        };
        let mut settings = Map::new();
        if let (true, Some(ratio)) = (text.starts_with("LoRA+"), behind("ratio ")) {
            settings.insert("loraplus_lr_ratio".into(), ratio.into());
        }
        if text.starts_with("LoRA-FA") {
            settings.insert("lora_fa".into(), true.into());
        }
        let epsilon = behind("eps ").unwrap_or(1e-8) as f32;
        let weight_decay = behind("decay ").unwrap_or(0.01) as f32;
        Self { epsilon, weight_decay, settings }
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
        let optimizer = Optimizer::described(&meta.optimizer);
        let Meta { arch: architecture, active, trainable, .. } = meta;
        let Meta { weights, splits, batch_sizes, names, .. } = meta;
        // What was converted to a plain LoRA has twice the rank that was trained.
        let trainable = trainable.filter(|_| !name.ends_with("-converted"));
        let (name, root) = (name.to_string(), root.to_path_buf());
        Ok(Self {
            name,
            directory,
            root,
            architecture,
            active,
            trainable,
            optimizer,
            weights,
            splits,
            batch_sizes,
            names,
        })
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

    /// What a curve starts from, with what the reference does in an optimizer as fields of the method.
    pub fn start(
        &self,
        registry: &Registry,
        model: &Model,
        device: &Device,
    ) -> Result<Adapter, Outcome> {
        if self.optimizer.settings.is_empty() {
            return self.adapter("start", registry, model, device);
        }
        let copy =
            self.with_settings("start").map_err(|error| Outcome::Failed(error.to_string()))?;
        let loaded = Adapter::load(copy.path(), registry, model.base(), device);
        loaded.map_err(|error| Outcome::Failed(error.to_string()))
    }

    /// A copy of the directory of an adapter of HF PEFT, with the optimizer's settings.
    fn with_settings(&self, folder: &str) -> anyhow::Result<TempDir> {
        let copy = TempDir::new()?;
        for file in std::fs::read_dir(self.directory.join(folder))? {
            let file = file?;
            std::fs::copy(file.path(), copy.path().join(file.file_name()))?;
        }
        let path = copy.path().join("adapter_config.json");
        let mut fields: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path)?)?;
        fields.extend(self.optimizer.settings.clone());
        std::fs::write(&path, serde_json::to_vec(&fields)?)?;
        Ok(copy)
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
        let Some((composition, names)) = self.composition()? else {
            let adapter = self.adapter(".", registry, model, device)?;
            let trainable = fresh(&adapter)?;
            return Ok((adapter, trainable));
        };
        let adapters: Vec<Adapter> = names
            .iter()
            .map(|name| self.adapter(name, registry, model, device))
            .collect::<Result<_, _>>()?;
        let are_loras = |all: &[Adapter]| all.iter().all(|a| a.config.method.name() == "lora");
        if matches!(composition, Composition::Average { .. }) {
            let why = "the reference divides an average by the number of its adapters twice";
            return Err(Outcome::NotSupported(why.into()));
        }
        if composition == Composition::Stack && are_loras(&adapters) {
            let why = "the reference gives the second of stacked LoRAs what the first adds";
            return Err(Outcome::NotSupported(why.into()));
        }
        let fusion = (composition == Composition::Fuse)
            .then(|| self.adapter("fusion", registry, model, device))
            .transpose()?;
        let all = adapters.iter().chain(&fusion);
        let trainable = all.map(fresh).sum::<Result<usize, Outcome>>()?;
        Ok((composition.of(adapters, fusion, model.base()).map_err(failed)?, trainable))
    }

    /// How the adapters of the case are composed, and their names; `None` where there is one.
    fn composition(&self) -> Result<Option<(Composition, Vec<&str>)>, Outcome> {
        let Some((how, names)) = self.active.as_deref().and_then(|a| a.split_once('[')) else {
            return Ok(None);
        };
        let names: Vec<&str> = names.trim_end_matches(']').split(", ").collect();
        if names == ["task"] {
            return Ok(None);
        }
        let composition = match how {
            "Stack" => Composition::Stack,
            "Fuse" => Composition::Fuse,
            "Parallel" => Composition::Parallel,
            "MultiTask" => Composition::MultiTask,
            "Average" => Composition::Average { weights: self.weights.clone() },
            "Split" => Composition::Split { splits: self.splits.clone() },
            "BatchSplit" => Composition::BatchSplit { batch_sizes: self.batch_sizes.clone() },
            other => return Err(Outcome::NotSupported(format!("the composition {other}"))),
        };
        Ok(Some((composition, names)))
    }

    /// How often the case has its batch, once for each adapter that is side by side with others, and
    /// the slots of the rows.
    pub fn slots(&self, texts: usize, tasks: Option<&[usize]>) -> Result<(usize, Slots), Outcome> {
        let of_one = |tasks: &[usize]| tasks.iter().copied().map(Some).collect();
        let Some((composition, names)) = self.composition()? else {
            return Ok((1, tasks.map_or(Slots::default(), |tasks| Slots::new(of_one(tasks)))));
        };
        let times = if composition == Composition::Parallel { names.len() } else { 1 };
        let slots = composition.slots(names.len(), texts, tasks);
        Ok((times, slots.map_err(|error| Outcome::Failed(error.to_string()))?))
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

/// The values that a file holds under a second key: the factors of an embedding, of a head that is tied to
/// it. In HF PEFT they are two parameters of one storage, which counts them twice.
pub fn held_twice(mut method: BoxedMethod, base: &Base) -> usize {
    let (mut tensors, mut file) = (Exchange::describe(), TensorMap::new());
    method.exchange(&mut tensors, base);
    method.exchange(&mut Exchange::write(&mut file), base);
    let specs = tensors.into_specs();
    let is_known = |key: &String| specs.iter().any(|tensor| tensor.key == *key);
    let twice = file.iter().filter(|(key, _)| !is_known(key));
    twice.map(|(_, data)| data.shape().num_elements()).sum()
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
