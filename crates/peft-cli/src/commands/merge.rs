//! `peft merge`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use burn::tensor::DType;
use clap::{Args, ValueEnum};
use peft::core::TensorMap;
use peft::format::{merged_tensors, write_atomically, write_safetensors};
use peft::models::{AddedTokens, Gguf};
use peft::train::{AdaptedModel, AdapterPaths};
use serde_json::{Value, json};

use crate::models::is_kept;
use crate::options::{DeviceOptions, ModelOptions, adapter_parser};
use crate::output::{print_json, refuse_used, shown, stdout, write_new};

/// Fold an adapter into its model.
///
/// Writes a Hugging Face checkpoint directory (config.json, model.safetensors, the tokenizer's
/// files, generation_config.json), which `peft` and `transformers` load like any other. The base is
/// not changed.
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    model: ModelOptions,
    /// The adapter's directory
    #[arg(long, value_name = "DIR", value_parser = adapter_parser())]
    adapter: PathBuf,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The type of the tensors that are written
    #[arg(long, default_value = "f32")]
    dtype: TypeName,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// A type of numbers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeName {
    F32,
    F16,
    Bf16,
}

impl TypeName {
    /// Tensors in this type. What it has no number for is an error.
    fn of(self, tensors: TensorMap) -> anyhow::Result<TensorMap> {
        let dtype = match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        };
        let converted = tensors.into_iter().map(|(key, data)| {
            if !data.dtype().is_float() {
                return Ok((key, data));
            }
            let data = data.convert_dtype(dtype);
            if !data.iter::<f32>().all(f32::is_finite) {
                bail!("{key}: holds values that are not finite, or not in {}", self.name());
            }
            Ok((key, data))
        });
        converted.collect()
    }

    /// What transformers calls it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Says in a `config.json` that the tensors have it, in the field that is there.
    fn note_in(self, config: &mut Value) {
        let Some(fields) = config.as_object_mut() else { return };
        // The newer name first; older versions of transformers know the other.
        let mut known = ["dtype", "torch_dtype"].into_iter().filter(|f| fields.contains_key(*f));
        let field = known.next().unwrap_or("torch_dtype");
        fields.remove("torch_dtype");
        fields.insert(field.into(), self.name().into());
    }
}

impl Merge {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        refuse_used(&self.out)?;
        let device = self.device.device()?;
        let (resolved, adapted) = self.model.load(&AdapterPaths::one(&self.adapter), &device)?;
        let adapter = adapted.adapter.as_ref().context("an adapter was asked for")?;
        let base = adapted.model.base();
        let [held, full] = [base.num_bytes(), 4 * base.num_weights()].map(|n| n as f64 / 1e6);
        if held < full {
            tracing::warn!(
                "the base's {held:.0} MB of packed weights are merged in full precision, \
                 {full:.0} MB of f32"
            );
        }
        let tensors = merged_tensors(adapter, base)?;
        let (from, count) = (&resolved.directory, tensors.len());
        write_new(&self.out, || write_model(&self.out, from, &adapted, tensors, self.dtype))?;
        if self.json {
            print_json(&json!({"out": shown(&self.out), "tensors": count}))?;
        } else {
            writeln!(stdout(), "{}: {count} tensors", self.out.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a checkpoint directory for the model of `adapted` with other tensors and the tokens that
/// were added, configuration last.
pub fn write_model(
    out: &Path,
    from: &Path,
    adapted: &AdaptedModel,
    tensors: TensorMap,
    dtype: TypeName,
) -> anyhow::Result<()> {
    let (model, task) = (&adapted.model, adapted.task.as_ref());
    let config = model.config_for(&tensors);
    let tensors = dtype.of(tensors)?;
    write_safetensors(&out.join("model.safetensors"), &tensors)?;
    keep_files(from, out)?;
    if !from.join("tokenizer.json").exists()
        && let Some(gguf) = Gguf::find(from)?
    {
        let tokenizer = gguf.tokenizer_json()?;
        write_atomically(&out.join("tokenizer.json"), |file| writeln!(file, "{tokenizer}"))?;
    }
    AddedTokens::load(from)?.with(&adapted.added_tokens)?.save(out)?;
    let names = task.map_or(&[][..], |task| &task.labels.names);
    let problem = task.and_then(|task| task.labels.goal.problem_type());
    let mut config = config.to_json(model.task(), names, problem);
    dtype.note_in(&mut config);
    let config = serde_json::to_string_pretty(&config)?;
    write_atomically(&out.join("config.json"), |file| writeln!(file, "{config}"))?;
    Ok(())
}

/// Copies what belongs to every model, or adapter, that is made from the one in `from`.
pub fn keep_files(from: &Path, out: &Path) -> anyhow::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let path = entry.with_context(|| from.display().to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_kept(name));
        if let Some(name) = name.filter(|_| path.is_file()) {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            write_atomically(&out.join(name), |file| file.write_all(&bytes))?;
        }
    }
    Ok(())
}
