//! `peft eval`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use peft::data::{Columns, Dataset};
use peft::train::evaluate;
use serde_json::json;

use crate::data::{Tokens, layout};
use crate::input::Input;
use crate::loaded::Loaded;
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, known_task};
use crate::output::{print_json, shown, stdout};

/// Measure an adapter on labelled texts; without --adapter, the model's own head.
#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Labelled texts: .tsv, .csv, .jsonl, ..., `-` for standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The columns of the file [default: those of the training data]
    #[arg(long)]
    columns: Option<Columns>,
    /// Examples in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Eval {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let input = Input::open(&self.data)?;
        let device = self.device.device()?;
        let loaded = Loaded::new(&self.model, &self.adapters, &device)?;
        loaded.check_heads()?;
        let directory = &loaded.resolved.directory;
        let results = loaded.each(|group, slot, side| {
            let task = known_task(side.task.as_ref())?;
            let layout = layout(&self.columns, task);
            let read = |path: &Path| Dataset::load(path, &layout, &task.labels);
            let data = input.read(task.labels.goal, true, read)?;
            if !data.is_labelled() {
                bail!("{}: the columns name no label, which evaluation needs", self.data.display());
            }
            let (model, added) = (&group.model, &side.added_tokens);
            let data = Tokens::load(directory, task.max_length, model, added)?.of(&data)?;
            let under = group.under(slot);
            Ok(evaluate(model, under, &data, &task.labels, self.batch_size)?)
        })?;
        match &results[..] {
            [(_, metrics)] if self.json => print_json(metrics)?,
            _ if self.json => {
                let each = results
                    .iter()
                    .map(|(adapter, metrics)| json!({"adapter": adapter.map(|path| shown(path)), "metrics": metrics}));
                print_json(&json!({"adapters": each.collect::<Vec<_>>()}))?;
            }
            _ => {
                let mut out = stdout();
                for (adapter, metrics) in &results {
                    if let (Some(adapter), true) = (adapter, results.len() > 1) {
                        writeln!(out, "{}", adapter.display())?;
                    }
                    for (name, value) in metrics.as_map() {
                        writeln!(out, "{name:20} {value}")?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
