//! `peft observe`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use burn::module::Module;
use clap::Args;
use peft::core::{Observation, Probe};
use peft::data::{Columns, Dataset};
use peft::format::Composition;
use peft::train::{Under, predict};
use serde::Deserialize;
use serde_json::json;

use crate::data::{Tokens, layout};
use crate::heatmap::Heatmap;
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, adapter_name, known_task};
use crate::output::{print_json, shown, stdout};

/// Show what gates and fusions decide on texts, and plot it.
///
/// Prints, for each site, the mean of a gate (UniPELT), or of the attention over each adapter (a
/// fusion). Padding counts like text; batches hold texts of similar length.
#[derive(Args)]
pub struct Observe {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Texts: .tsv, .csv, .jsonl
    #[arg(long, value_name = "FILE", required_unless_present = "from")]
    data: Option<PathBuf>,
    /// Plot earlier --json outputs instead: a row for each file, the mean over its layers
    #[arg(long, value_name = "FILE", conflicts_with = "data", requires = "plot")]
    from: Vec<PathBuf>,
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
        if !self.from.is_empty() {
            let heatmap = compared(&self.from)?;
            let plot = self.plot.context("--from needs --plot")?;
            heatmap.write(&plot)?;
            writeln!(stdout(), "{}", plot.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let data = self.data.clone().context("no texts: give --data")?;
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let device = self.device.device()?;
        let paths = self.adapters.paths()?;
        if paths.composition.as_ref().is_some_and(Composition::has_slots) {
            bail!("adapters side by side do not interact: observe one at a time");
        }
        let (resolved, adapted) = self.model.load(&paths, &device)?;
        let adapter = adapted.adapter.context("nothing to observe: give an --adapter")?;
        let task = known_task(adapted.task.as_ref())?;
        let data = Dataset::load(&data, &layout(&self.columns, task), &task.labels)?;
        let data = Tokens::load(
            &resolved.directory,
            task.max_length,
            &adapted.model,
            &adapted.added_tokens,
        )?
        .of(&data)?;
        let probe = Probe::default();
        let method = adapter.method.valid();
        let under = Under::method(&method).with_probe(&probe);
        predict(&adapted.model, under, &data, self.batch_size)?;
        let observations = probe.observations();
        if observations.is_empty() {
            let name = adapter.config.method.name();
            bail!("{name} decides nothing while it runs: it has neither gates nor a fusion");
        }
        let heatmap = self.heatmap(&observations);
        if let Some(path) = &self.plot {
            heatmap.write(path)?;
        }
        if self.json {
            let adapters = self.adapters.adapters.iter().map(|path| adapter_name(path));
            print_json(&json!({
                "adapters": adapters.collect::<Vec<_>>(),
                "observations": observations,
                "plot": self.plot.as_deref().map(shown),
            }))?;
        } else {
            let mut out = stdout();
            for seen in &observations {
                let means: Vec<String> = seen.mean.iter().map(|m| format!("{m:.4}")).collect();
                writeln!(out, "{:50} {:14} {}", seen.path, seen.name, means.join("  "))?;
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

/// Earlier outputs of fusions, a row each: the mean of the attention over all sites.
fn compared(files: &[PathBuf]) -> anyhow::Result<Heatmap> {
    #[derive(Deserialize)]
    struct Earlier {
        adapters: Vec<String>,
        observations: Vec<Observation>,
    }
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for path in files {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(shown)?;
        let last = text.lines().next_back().unwrap_or_default();
        let earlier: Earlier = serde_json::from_str(last).with_context(shown)?;
        let count = earlier.adapters.len();
        if earlier.observations.iter().any(|seen| seen.mean.len() != count) {
            bail!("{}: no attention of a fusion, with a value for each adapter", path.display());
        }
        match &columns {
            Some(columns) if *columns != earlier.adapters => {
                bail!("{}: has other adapters than the files before", path.display())
            }
            _ => columns = Some(earlier.adapters),
        }
        let sites = earlier.observations.len().max(1) as f64;
        let mean = |adapter: usize| {
            Some(earlier.observations.iter().map(|seen| seen.mean[adapter]).sum::<f64>() / sites)
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        rows.push((name, (0..count).map(mean).collect()));
    }
    let columns = columns.unwrap_or_default();
    Ok(Heatmap { title: "Attention over adapters, by target task".into(), columns, rows })
}
