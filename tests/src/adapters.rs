//! Adapters that this library writes, for the reference library to load.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use peft_core::{
    Adapter, AdapterConfig, Hooks, Registry, TensorMap, merged_tensors, read_safetensors,
    write_safetensors,
};
use peft_models::{Checkpoint, Encoder, EncoderConfig, EncoderInput, EncoderTask, Task};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Labels of a head for a base that has none.
const LABELS: usize = 3;
/// The standard deviation of the noise in every trained parameter: as much as training does to
/// factors of such sizes, and far above what is compared.
const NOISE: f64 = 0.05;

/// A configuration to write adapters with.
struct Variant {
    name: &'static str,
    method: &'static str,
    fields: Value,
    /// Over the encoder alone, whatever the base was saved as.
    bare: bool,
}

/// One adapter, with its inputs and outputs beside it.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// `bert-dora`.
    pub name: String,
    /// The base's directory.
    pub model: PathBuf,
    /// The adapter's directory.
    pub adapter: PathBuf,
    /// `input_ids`, `attention_mask`, `logits` and `merged_logits`.
    pub io: PathBuf,
}

fn variants() -> Vec<Variant> {
    let query_value = json!(["query", "value"]);
    let on = |name, method, fields| Variant { name, method, fields, bare: false };
    vec![
        on("lora", "lora", json!({"target_modules": query_value, "r": 4, "lora_alpha": 8})),
        on("all-linear", "lora", json!({"target_modules": "all-linear", "r": 3})),
        on("rslora", "rslora", json!({"target_modules": query_value, "r": 4, "lora_alpha": 3})),
        on("dora", "dora", json!({"target_modules": "all-linear", "r": 4})),
        on("pissa", "pissa", json!({"target_modules": "all-linear", "r": 4, "lora_alpha": 6})),
        on("bias-lora-only", "lora", json!({"target_modules": query_value, "bias": "lora_only"})),
        on("bias-all", "lora", json!({"target_modules": query_value, "bias": "all"})),
        on(
            "patterns",
            "lora",
            json!({
                "target_modules": ["query", "key", "value", "dense"],
                "layers_to_transform": [1],
                "layers_pattern": "layer",
                "r": 4,
                "lora_alpha": 6,
                "rank_pattern": {"query": 2},
                "alpha_pattern": {"key": 20},
            }),
        ),
        Variant { bare: true, ..on("encoder", "lora", json!({"target_modules": query_value})) },
    ]
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
    let (with_head, bare) = load(model, device)?;
    let inputs = inputs(model, with_head.config())?;
    let mut written = Vec::new();
    for (number, variant) in variants().iter().enumerate() {
        let name = format!("{}-{}", base_name.to_string_lossy(), variant.name);
        let adapter = out.join(&name);
        let encoder = if variant.bare { &bare } else { &with_head };
        let io = write(variant, number as u64, encoder, &inputs, registry, &adapter)
            .with_context(|| name.clone())?;
        written.push(Written { name, model: model.into(), adapter, io });
    }
    Ok(written)
}

/// The base with its own head, or a new one where it has none, and without any.
fn load(model: &Path, device: &Device) -> Result<(Encoder, Encoder)> {
    let for_task = |task| Encoder::load(model, Some(EncoderTask { task, seed: 0 }), device);
    let (own, _) = Encoder::load(model, None, device)?;
    if own.task() == Task::Encode {
        return Ok((for_task(Task::ClassifySequence { labels: LABELS })?.0, own));
    }
    Ok((own, for_task(Task::Encode)?.0))
}

fn write(
    variant: &Variant,
    seed: u64,
    encoder: &Encoder,
    inputs: &TensorMap,
    registry: &Registry,
    directory: &Path,
) -> Result<PathBuf> {
    let base = encoder.base();
    base.device().seed(seed);
    let fields: Map<String, Value> = serde_json::from_value(variant.fields.clone())?;
    let config = registry.configure(variant.method, fields)?;
    let config = AdapterConfig::new(config).with_task(encoder.task_type());
    let mut adapter = Adapter::new(config, base, base.device())?;
    adapter.method = adapter.method.map(&mut Noise);
    adapter.save(directory, base)?;

    let mut checkpoint = Checkpoint::from_tensors("merged", merged_tensors(&adapter, base)?);
    let task = EncoderTask { task: encoder.task(), seed: 0 };
    let config = encoder.config().clone();
    let (merged, report) = Encoder::from_checkpoint(config, &mut checkpoint, task, base.device())?;
    ensure!(report.initialized.is_empty(), "the merged model lacks {:?}", report.initialized);

    let mut io = inputs.clone();
    io.insert("logits".into(), output(encoder, inputs, &adapter.method.valid())?);
    io.insert("merged_logits".into(), output(&merged, inputs, &())?);
    let path = directory.join("io.safetensors");
    write_safetensors(&path, &io)?;
    Ok(path)
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

/// The recorded inputs of a fixture; of another base, two texts of made-up tokens, one of them
/// filled up.
fn inputs(model: &Path, config: &EncoderConfig) -> Result<TensorMap> {
    let recorded = model.join("io.safetensors");
    if recorded.is_file() {
        let mut tensors = read_safetensors(&recorded)?;
        tensors.retain(|name, _| name == "input_ids" || name == "attention_mask");
        return Ok(tensors);
    }
    let (vocabulary, pad) = (config.vocab_size as i64, config.pad_token_id as i64);
    let [rows, tokens, short] = [2, 12, 7];
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for (row, token) in (0..rows).flat_map(|row| (0..tokens).map(move |token| (row, token))) {
        let is_token = row == 0 || token < short;
        // Past the special tokens, which come first.
        let id = 5 + (1 + row * tokens + token) * 7919 % (vocabulary - 5);
        ids.push(if is_token { id } else { pad });
        mask.push(i64::from(is_token));
    }
    let shape = [rows as usize, tokens as usize];
    Ok(TensorMap::from([
        ("input_ids".into(), TensorData::new(ids, shape)),
        ("attention_mask".into(), TensorData::new(mask, shape)),
    ]))
}

/// The output as the reference lays it out: `[batch, labels]` of a sequence.
fn output(model: &Encoder, inputs: &TensorMap, hooks: &dyn Hooks) -> Result<TensorData> {
    let ids = inputs.get("input_ids").context("no input_ids")?.clone();
    let mask = inputs.get("attention_mask").cloned();
    let input = EncoderInput::from_data(ids, mask, None, model.base().device())?;
    let output = model.infer(&input, hooks)?;
    Ok(match model.task() {
        Task::ClassifySequence { .. } => output.squeeze_dim::<2>(1).into_data(),
        Task::ClassifyTokens { .. } | Task::Encode => output.into_data(),
    })
}
