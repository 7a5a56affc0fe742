//! `peft inspect`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use peft::format::Accounting;
use peft::models::Task;
use serde_json::{Value, json};

use crate::options::{DeviceOptions, ModelOptions, SettingOptions};
use crate::outline::Outline;
use crate::output::{grouped, print_json, stdout};

/// Show what a method would train on a model.
#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelOptions,
    /// The method; `peft methods` lists them
    #[arg(long, default_value = "lora")]
    method: String,
    #[command(flatten)]
    settings: SettingOptions,
    /// Number of labels of the head
    #[arg(long, default_value_t = 2)]
    labels: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Inspect {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let device = self.device.device()?;
        let task = Task::ClassifySequence { labels: self.labels };
        let Outline { name, model, adapter, .. } =
            Outline::new(&self.model, &self.method, &self.settings, task, &device)?;
        let counts = Accounting::new(&adapter, model.base());
        if self.json {
            let mut value = serde_json::to_value(&counts)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("model".into(), json!(name));
                fields.insert("method".into(), json!(self.method));
                fields.insert("settings".into(), Value::Object(adapter.config.method.to_fields()));
            }
            print_json(&value)?;
        } else {
            show(&counts)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(counts: &Accounting) -> std::io::Result<()> {
    let mut out = stdout();
    let width = counts.sites.iter().map(|site| site.path.len()).max().unwrap_or(4);
    writeln!(
        out,
        "{:width$}  {:>12}  {:>10}  {:>10}  {:>5}",
        "site", "shape", "trainable", "changed", "rank"
    )?;
    for site in &counts.sites {
        let shape = format!("{} x {}", site.shape[0], site.shape[1]);
        let (trainable, changed) = (grouped(site.trainable), grouped(site.changed));
        writeln!(
            out,
            "{:width$}  {shape:>12}  {trainable:>10}  {changed:>10}  {:>5}",
            site.path, site.rank
        )?;
    }
    writeln!(out)?;
    writeln!(out, "total      {:>12}", grouped(counts.total))?;
    let head = grouped(counts.head_trainable);
    writeln!(
        out,
        "trainable  {:>12}  {:.3} %  (of which the head: {head})",
        grouped(counts.trainable),
        counts.trainable_percent
    )?;
    writeln!(out, "changed    {:>12}  {:.3} %", grouped(counts.changed), counts.changed_percent)?;
    writeln!(out, "rank       {:>12}  {:.3} %", grouped(counts.rank), counts.rank_percent)?;
    writeln!(out, "file       {:>12}  bytes of tensors", grouped(counts.bytes))?;
    if let Some(reason) = &counts.merge_obstacle {
        writeln!(out, "not mergeable: {reason}")?;
    }
    Ok(())
}
