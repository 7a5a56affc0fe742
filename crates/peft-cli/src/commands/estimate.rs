//! `peft estimate`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use peft::core::{Base, Method, SiteKind};
use peft::data::{Goal, Labels};
use peft::models::{Checkpoint, Precision};
use peft::train::{Estimate as Estimated, Machine, TrainSettings, Weights, Workload};
use serde_json::json;

use super::train::TaskName;
use crate::options::{DeviceOptions, ModelOptions, SettingOptions};
use crate::outline::Outline;
use crate::output::{grouped, print_json, stdout};

/// Show what training would take: the most memory at once, by part, and the time of a step.
///
/// Nothing is loaded and nothing is trained: memory is computed from shapes, and time from how fast
/// this machine multiplies matrices, which is measured in a fraction of a second.
#[derive(Args)]
pub struct Estimate {
    #[command(flatten)]
    model: ModelOptions,
    /// The method; `peft methods` lists them
    #[arg(long, default_value = "lora")]
    method: String,
    #[command(flatten)]
    settings: SettingOptions,
    /// The task
    #[arg(long, default_value = "classify")]
    task: TaskName,
    /// Number of labels, where the task has some
    #[arg(long, default_value_t = 2)]
    labels: usize,
    /// Examples in a batch [default: 32]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Tokens of each text
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    length: usize,
    /// Keep what enters each sublayer, and run each again in the backward pass
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Estimate {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let device = self.device.device()?;
        let goal = self.task.goal();
        let names = if goal.has_names() { self.labels } else { 0 };
        let names = (0..names).map(|label| label.to_string()).collect();
        let task = Labels { goal, names }.task();
        let Outline { name, checkpoint, model, adapter } =
            Outline::new(&self.model, &self.method, &self.settings, task, &device)?;
        let texts = self.batch_size.unwrap_or(TrainSettings::default().batch_size);
        let room = model.max_tokens().saturating_sub(adapter.method.virtual_tokens());
        let tokens = self.length.min(room);
        let workload = Workload {
            texts,
            tokens,
            targets: targets(goal, texts, tokens),
            gradient_checkpointing: self.gradient_checkpointing,
            weights: weights(&checkpoint, model.base())?,
        };
        let machine = Machine::measured(checkpoint.precision().element(), &device);
        let estimate = Estimated::new(&model, &adapter, workload, &machine);
        if self.json {
            let mut value = serde_json::to_value(&estimate)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("model".into(), json!(name));
                fields.insert("method".into(), json!(self.method));
                fields.insert("batch_size".into(), json!(texts));
                fields.insert("length".into(), json!(tokens));
            }
            print_json(&value)?;
        } else {
            show(&estimate, texts * tokens)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The outputs that a batch's loss is computed from.
fn targets(goal: Goal, texts: usize, tokens: usize) -> usize {
    match goal {
        Goal::Classify | Goal::MultiLabel | Goal::Regress => texts,
        // The first token has nothing before it.
        Goal::CausalLm => texts * tokens.saturating_sub(1),
        // A share of the words is hidden.
        Goal::MaskedLm => (texts * tokens * 15).div_ceil(100),
        Goal::Tag | Goal::QuestionAnswering | Goal::Seq2Seq => texts * tokens,
    }
}

/// How the frozen weights are held.
fn weights(checkpoint: &Checkpoint, base: &Base) -> anyhow::Result<Weights> {
    let precision = checkpoint.precision();
    let path = checkpoint.path();
    let is_gguf = path.extension().is_some_and(|extension| extension == "gguf");
    // Bytes of a number of a linear layer, and of a table.
    let [linear, table] = match precision {
        Precision::Stored if is_gguf => {
            return Ok(Weights::Packed(std::fs::metadata(path)?.len() as usize));
        }
        Precision::Stored | Precision::Full | Precision::Bf16 => {
            return Ok(Weights::LaidOut(precision.element()));
        }
        Precision::Half => [2.0, 2.0],
        Precision::EightBit => [34.0 / 32.0; 2],
        Precision::FourBit => [0.5 + 4.0 / 64.0, 34.0 / 32.0],
    };
    let bytes = base.sites().map(|site| match site.kind {
        SiteKind::Linear => linear * site.num_params() as f64,
        SiteKind::Embedding => table * site.num_params() as f64,
        _ => 4.0 * site.num_params() as f64,
    });
    Ok(Weights::Packed(bytes.sum::<f64>() as usize))
}

fn show(estimate: &Estimated, tokens: usize) -> std::io::Result<()> {
    let mut out = stdout();
    let memory = &estimate.memory;
    let parts = [
        ("base", memory.base),
        ("adapter", memory.adapter),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("activations", memory.activations),
        ("workspace", memory.workspace),
        ("peak memory", estimate.peak_bytes),
    ];
    for (part, bytes) in parts {
        writeln!(out, "{part:<12}  {:>10.1} MB", bytes as f64 / 1e6)?;
    }
    writeln!(out)?;
    writeln!(out, "trainable     {:>10}", grouped(estimate.trainable))?;
    writeln!(out, "a step        {:>10.3} s", estimate.seconds)?;
    writeln!(out, "tokens        {:>10.0} in a second", tokens as f64 / estimate.seconds)
}
