//! `peft subspace`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use burn::tensor::Tensor;
use clap::Args;
use peft::format::{read_safetensors, write_safetensors};
use peft::prefix::{FoundSubspace, SUBSPACE_FILE, SubspaceSettings, find_subspace};
use serde_json::{Value, json};

use crate::options::{DeviceOptions, adapter_parser, number};
use crate::output::{print_json, refuse_used, shown, stdout, write_new};

/// Find a subspace between the prompts of several tasks, for `--method ipt`.
#[derive(Args)]
pub struct Subspace {
    /// Directories of adapters that were trained with `--method prompt`, of one model and one length
    #[arg(required = true, value_name = "ADAPTER", value_parser = adapter_parser())]
    adapters: Vec<PathBuf>,
    /// The number of its dimensions
    #[arg(long, default_value_t = 250, value_name = "D")]
    intrinsic_dimension: usize,
    /// The width of the decoder
    #[arg(long, default_value_t = 768)]
    hidden: usize,
    /// Steps of training, each over all prompts
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// The rate of training
    #[arg(long, default_value_t = 1e-3, value_parser = number)]
    lr: f64,
    /// The seed of its start
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Subspace {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        refuse_used(&self.out)?;
        let device = self.device.device()?;
        let read = |path: &PathBuf| {
            Prompt::read(path).with_context(|| format!("the adapter {}", path.display()))
        };
        let prompts = self.adapters.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        let first = &prompts[0];
        for (prompt, path) in prompts.iter().zip(&self.adapters) {
            ensure!(
                prompt.place == first.place,
                "{}: its prompt stands at another place (after_embeddings, combine) than that of {}",
                path.display(),
                self.adapters[0].display()
            );
        }
        let settings = SubspaceSettings {
            intrinsic_dimension: self.intrinsic_dimension,
            hidden: self.hidden,
            steps: self.steps,
            learning_rate: self.lr,
            seed: self.seed,
        };
        let tensors = prompts.iter().map(|prompt| {
            let values = Tensor::<2>::from_data(prompt.values.clone(), &device);
            values.narrow(0, 0, prompt.length)
        });
        let tensors: Vec<_> = tensors.collect();
        let FoundSubspace { subspace, losses: [begin, end] } =
            find_subspace(&tensors, &settings, &device)?;
        write_new(&self.out, || {
            write_safetensors(&self.out.join(SUBSPACE_FILE), &subspace.tensors())?;
            Ok(())
        })?;
        let (prompts, length) = (prompts.len(), first.length);
        if self.json {
            let (out, dimension) = (shown(&self.out), self.intrinsic_dimension);
            print_json(&json!({
                "out": out, "prompts": prompts, "num_virtual_tokens": length,
                "intrinsic_dimension": dimension, "loss_before": begin, "loss": end,
            }))?;
        } else {
            writeln!(
                stdout(),
                "{}: {} dimensions between {prompts} prompts of {length} tokens; mean squared error \
                 {begin:.4} before, {end:.4} after",
                self.out.display(),
                self.intrinsic_dimension,
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The prompt of an adapter.
struct Prompt {
    length: usize,
    /// Where it stands.
    place: [Option<Value>; 2],
    /// `[L, d]`, or `[2 L, d]` of an encoder and a decoder.
    values: burn::tensor::TensorData,
}

impl Prompt {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let config: Value =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let method = config["peft_type"].as_str().unwrap_or("without a peft_type");
        ensure!(method == "PROMPT_TUNING", "it is {method}, and not of prompt tuning");
        let length = config["num_virtual_tokens"].as_u64().context("no num_virtual_tokens")?;
        let length = usize::try_from(length)?;
        let mut tensors = read_safetensors(&directory.join("adapter_model.safetensors"))?;
        let values = tensors.remove("prompt_embeddings").context("no prompt_embeddings")?;
        let shape = values.shape().to_vec();
        ensure!(
            shape.len() == 2 && (1..=shape[0]).contains(&length),
            "prompt_embeddings has shape {shape:?}, and num_virtual_tokens is {length}"
        );
        let place = ["after_embeddings", "combine"].map(|field| config.get(field).cloned());
        Ok(Self { length, place, values: values.convert::<f32>() })
    }
}
