//! `peft merge`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use peft::core::TensorMap;
use peft::format::{merged_tensors, write_atomically, write_safetensors};
use peft::models::{AddedTokens, Gguf};
use peft::train::{AdaptedModel, AdapterPaths};
use serde_json::json;

use crate::options::{DeviceOptions, ModelOptions};
use crate::output::{print_json, refuse_used, stdout};

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
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
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
                "the base's {held:.0} MB of packed weights are merged and written in full \
                 precision, {full:.0} MB of f32"
            );
        }
        let tensors = merged_tensors(adapter, base)?;
        write_model(&self.out, &resolved.directory, &adapted, &tensors)?;
        if self.json {
            print_json(&json!({"out": self.out, "tensors": tensors.len()}))?;
        } else {
            writeln!(stdout(), "{}: {} tensors", self.out.display(), tensors.len())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Files that are copied unchanged.
const KEPT_FILES: &[&str] = &[
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
];

/// Writes a checkpoint directory for the model of `adapted` with other tensors and the tokens that
/// were added, configuration last.
pub fn write_model(
    out: &Path,
    from: &Path,
    adapted: &AdaptedModel,
    tensors: &TensorMap,
) -> anyhow::Result<()> {
    let (model, task) = (&adapted.model, adapted.task.as_ref());
    write_safetensors(&out.join("model.safetensors"), tensors)?;
    for name in KEPT_FILES {
        let file = from.join(name);
        if file.exists() {
            let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
            write_atomically(&out.join(name), |file| file.write_all(&bytes))?;
        }
    }
    if !from.join("tokenizer.json").exists()
        && let Some(gguf) = Gguf::find(from)?
    {
        let tokenizer = gguf.tokenizer_json()?;
        write_atomically(&out.join("tokenizer.json"), |file| writeln!(file, "{tokenizer}"))?;
    }
    AddedTokens::load(from)?.with(&adapted.added_tokens)?.save(out)?;
    let names = task.map_or(&[][..], |task| &task.labels.names);
    let problem = task.and_then(|task| task.labels.goal.problem_type());
    let config = model.config_for(tensors).to_json(model.task(), names, problem);
    let config = serde_json::to_string_pretty(&config)?;
    write_atomically(&out.join("config.json"), |file| writeln!(file, "{config}"))?;
    Ok(())
}
