//! `peft observe`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use burn::module::Module;
use clap::Args;
use peft::core::{Method, Observation, Probe};
use peft::train::data::{Columns, Dataset};
use peft::train::{Heatmap, predict};
use serde_json::json;

use super::train::Tokens;
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, adapter_name, known_task};
use crate::output::print_json;

/// Show what gates and fusions decide on texts, and plot it.
///
/// Prints, for each site, the mean of a gate (UniPELT), or of the attention over each adapter (a
/// fusion). Padding counts as text does; texts run in batches of like length.
#[derive(Args)]
pub struct Observe {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Texts: .tsv, .csv, .jsonl
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The columns of the file [default: those of the training data]
    #[arg(long)]
    columns: Option<Columns>,
    /// Write a heat map (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Examples in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Observe {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let device = self.device.device()?;
        let (resolved, adapted) = self.model.load(&self.adapters.paths(), &device)?;
        let adapter = adapted.adapter.context("nothing to observe: give an --adapter")?;
        let task = known_task(adapted.task)?;
        let columns = self.columns.as_ref().unwrap_or(&task.columns);
        let data = Dataset::load(&self.data, columns, &task.labels)?;
        let data = Tokens::load(&resolved.directory, task.max_length, &adapted.model)?.of(&data)?;
        let probe = Probe::default();
        let mut method = adapter.method;
        method.observe(&probe);
        predict(&adapted.model, &method.valid(), &data, self.batch_size)?;
        let observations = probe.observations();
        if observations.is_empty() {
            let name = adapter.config.method.name();
            bail!("{name} decides nothing while it runs: it has neither gates nor a fusion");
        }
        if let Some(path) = &self.plot {
            self.heatmap(&observations).write(path)?;
        }
        if self.json {
            print_json(&json!({"observations": observations, "plot": self.plot}))?;
        } else {
            for seen in &observations {
                let means: Vec<String> = seen.mean.iter().map(|m| format!("{m:.4}")).collect();
                println!("{:50} {:14} {}", seen.path, seen.name, means.join("  "));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Gates: a row for each kind, a column for each layer. A fusion: a row for each site, a column
    /// for each adapter.
    fn heatmap(&self, observations: &[Observation]) -> Heatmap {
        let adapters = observations.iter().map(|seen| seen.mean.len()).max().unwrap_or(1);
        if adapters > 1 {
            let names = self.adapters.adapters.iter().map(|path| adapter_name(path));
            let row = |seen: &Observation| {
                (short(seen), seen.mean.iter().map(|mean| Some(*mean)).collect())
            };
            return Heatmap {
                title: "Attention over adapters".into(),
                columns: names.collect(),
                rows: observations.iter().map(row).collect(),
            };
        }
        let layers = observations.iter().filter_map(|seen| seen.layer).max().map_or(0, |l| l + 1);
        let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
        for seen in observations {
            let site = seen.path.rsplit('.').next().unwrap_or(&seen.path);
            let name = format!("{} at {site}", seen.name);
            let row = match rows.iter().position(|(row, _)| *row == name) {
                Some(row) => row,
                None => {
                    rows.push((name, vec![None; layers.max(1)]));
                    rows.len() - 1
                }
            };
            rows[row].1[seen.layer.unwrap_or(0)] = seen.mean.first().copied();
        }
        let columns = (0..layers.max(1)).map(|layer| format!("layer {layer}")).collect();
        Heatmap { title: "Mean of each gate".into(), columns, rows }
    }
}

fn short(seen: &Observation) -> String {
    let site = seen.path.rsplit('.').next().unwrap_or(&seen.path);
    seen.layer.map_or_else(|| site.to_string(), |layer| format!("layer {layer} {site}"))
}
