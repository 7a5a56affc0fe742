//! Adapters that this library writes, for the reference libraries to load.

mod io;
mod variants;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Method, TensorMap};
use peft_format::{Adapter, AdapterConfig, Registry, write_safetensors};
use peft_models::{Model, ModelTask, Task};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use variants::Library;
use variants::{Variant, variants};

/// Labels of a head for a base that has none.
const LABELS: usize = 3;
/// The standard deviation of the noise in every trained parameter: as much as training does to
/// factors of such sizes, and far above what is compared.
const NOISE: f64 = 0.05;
/// What `adapters`' files call an adapter.
const NAME: &str = "task";
/// The adapters below a fusion.
const FUSED: [&str; 2] = ["one", "two"];

/// One adapter, or a fusion of several, with its inputs and outputs beside it.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// `peft/bert-dora`.
    pub name: String,
    /// Who loads it.
    pub library: Library,
    /// The base's directory.
    pub model: PathBuf,
    /// The directories of the adapters.
    pub adapters: Vec<PathBuf>,
    /// The directory of the fusion of these adapters.
    pub fusion: Option<PathBuf>,
    /// `input_ids`, `attention_mask`, `logits`, and `merged_logits` where it merges.
    pub io: PathBuf,
}

/// Writes an adapter of every variant over the base in `model` to folders of their own in `out`.
///
/// # Errors
/// If the base cannot be loaded, an adapter cannot be built on it, or a file cannot be written.
pub fn write_all(
    model: &Path,
    out: &Path,
    registry: &Registry,
    device: &Device,
) -> Result<Vec<Written>> {
    let base_name = model.file_name().context("a base is a directory with a name")?;
    let (own, _) = Model::load(model, None, device)?;
    let variants = variants(&own);
    if variants.is_empty() {
        return Ok(Vec::new());
    }
    let for_task = |task| Ok::<_, anyhow::Error>(Model::load(model, Some(task), device)?.0);
    let bare = ModelTask { task: Task::Encode, seed: 0 };
    // Not every base can do without its head.
    let bare = variants.iter().any(|variant| variant.bare).then(|| for_task(bare)).transpose()?;
    let new = ModelTask { task: Task::ClassifySequence { labels: LABELS }, seed: 0 };
    let with_head = if own.task() == Task::Encode { for_task(new)? } else { own };
    let inputs = io::inputs(model, with_head.config())?;
    let mut written = Vec::new();
    for (number, variant) in variants.iter().enumerate() {
        let folder = match variant.library {
            Library::Peft => "peft",
            Library::Adapters => "adapters",
        };
        let name = format!("{folder}/{}-{}", base_name.to_string_lossy(), variant.name);
        let of_size = |outputs| ModelTask { task: with_head.task().with_labels(outputs), seed: 0 };
        let other = variant.outputs.map(|outputs| for_task(of_size(outputs))).transpose()?;
        let bare = bare.as_ref().filter(|_| variant.bare);
        let encoder = other.as_ref().or(bare).unwrap_or(&with_head);
        device.seed(number as u64);
        let writer = Writer { model, encoder, registry, directory: out.join(&name) };
        // HF PEFT puts a prompt before the padding in front of a text, which makes the text's output
        // depend on those beside it; ours stands next to the text.
        let inputs = match (variant.library, variant.method) {
            (Library::Peft, "prompt") => &io::padded_behind(&inputs)?,
            _ => &inputs,
        };
        let case = writer.write(variant, &name, inputs).with_context(|| name.clone())?;
        written.push(case);
    }
    Ok(written)
}

/// Where a case is written, and what it is over.
struct Writer<'a> {
    model: &'a Path,
    encoder: &'a Model,
    registry: &'a Registry,
    directory: PathBuf,
}

impl Writer<'_> {
    fn write(&self, variant: &Variant, name: &str, inputs: &TensorMap) -> Result<Written> {
        let library = variant.library;
        let (adapter, adapters, fusion) = match variant.fused {
            None => {
                let adapter = self.adapter(variant.method, &variant.fields)?;
                let directory = self.save(&adapter, library, NAME, NAME)?;
                (adapter, vec![directory], None)
            }
            Some(method) => {
                let (mut below, mut directories) = (Vec::new(), Vec::new());
                for name in FUSED {
                    let member = self.adapter(method, &json!({}))?;
                    directories.push(self.save(&member, library, name, name)?);
                    below.push(member);
                }
                let mut fields = variant.fields.clone();
                fields["adapter_names"] = json!(FUSED);
                let fusion =
                    self.adapter(variant.method, &fields)?.over(below, self.encoder.base())?;
                let directory = self.save(&fusion, library, "fusion", &FUSED.join(","))?;
                (fusion, directories, Some(directory))
            }
        };
        let io = self.directory.join("io.safetensors");
        let mut tensors = io::io(self.encoder, &adapter, inputs)?;
        if variant.unmerged {
            tensors.remove("merged_logits");
        }
        write_safetensors(&io, &tensors)?;
        Ok(Written { name: name.into(), library, model: self.model.into(), adapters, fusion, io })
    }

    /// A new adapter with noise in all that is trained, as it is after training.
    fn adapter(&self, method: &str, fields: &Value) -> Result<Adapter> {
        let base = self.encoder.base();
        let mut fields: Map<String, Value> = serde_json::from_value(fields.clone())?;
        let rows = fields.remove("trainable_token_indices").unwrap_or(json!([]));
        let mut config = AdapterConfig::new(self.registry.configure(method, fields)?);
        config.trainable_token_indices = serde_json::from_value(rows)?;
        let task = self.encoder.task_type().context("the bases have tagged tasks")?;
        let config = config.with_task(task, base);
        let mut adapter = Adapter::new(config, base, base.device())?;
        adapter.method = adapter.method.map(&mut Noise);
        adapter.method.finish();
        Ok(adapter)
    }

    /// Saves to the folder, under a name that is part of `adapters`' keys.
    fn save(
        &self,
        adapter: &Adapter,
        library: Library,
        folder: &str,
        name: &str,
    ) -> Result<PathBuf> {
        let directory = self.directory.join(folder);
        let base = self.encoder.base();
        match library {
            Library::Peft => adapter.save(&directory, base)?,
            Library::Adapters => {
                let model = self.encoder.adapters_model(&self.model.to_string_lossy());
                adapter.save_as_adapters(&directory, name, &model, base)?;
            }
        }
        Ok(directory)
    }
}

/// Adds noise to what is trained, and leaves constants (the start of PiSSA) alone.
struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            let device = tensor.device();
            let noise = tensor.random_like(Distribution::Normal(0.0, NOISE));
            Tensor::from_data((tensor + noise).into_data(), &device).require_grad()
        })
    }
}
