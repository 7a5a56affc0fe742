//! `peft counts`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use peft::format::{Accounting, MeasuredCounts};
use peft::models::Task;
use peft::train::AdapterPaths;
use peft::{PublishedCounts, published};
use serde::Serialize;
use serde_json::json;

use crate::options::{
    DeviceOptions, ModelOptions, SettingOptions, adapter_name, adapter_parser, number,
};
use crate::outline::Outline;
use crate::output::{grouped, print_json, stdout};
use crate::table::{numbers, words, write_table};

/// Show the three counts that papers confuse, trainable, changed and rank, of methods over a model or
/// of trained adapters, beside the papers' own figures.
///
/// Without an adapter they are what a method with its defaults trains and can change. Of an adapter,
/// what it did change is measured too: values of the merged model that differ from the base's, and
/// singular values of their change above a tolerance.
#[derive(Args)]
pub struct Counts {
    #[command(flatten)]
    model: ModelOptions,
    /// A method, or several: `lora,ia3` [default: all that fit the model]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "adapters")]
    method: Vec<String>,
    #[command(flatten)]
    settings: SettingOptions,
    /// The directory of a trained adapter, or of its run; may be given several times
    #[arg(long = "adapter", value_name = "DIR", value_parser = adapter_parser())]
    adapters: Vec<PathBuf>,
    /// Singular values count above this share of the largest of their matrix
    #[arg(long, value_name = "SHARE", default_value_t = MeasuredCounts::TOLERANCE, value_parser = number, requires = "adapters")]
    tolerance: f64,
    /// Number of labels of the head
    #[arg(long, default_value_t = 2, conflicts_with = "adapters")]
    labels: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The counts of a method or an adapter.
#[derive(Serialize)]
struct Line {
    /// The method's name, or a short one of the adapter.
    name: String,
    method: String,
    counts: Accounting,
    measured: Option<MeasuredCounts>,
    published: Option<PublishedCounts>,
}

impl Counts {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if !(0.0..1.0).contains(&self.tolerance) {
            bail!("--tolerance must be at least 0 and below 1, not {}", self.tolerance);
        }
        let lines = match self.adapters.is_empty() {
            true => self.of_methods()?,
            false => {
                self.adapters.iter().map(|path| self.of_adapter(path)).collect::<Result<_, _>>()?
            }
        };
        if self.json {
            print_json(&json!({"counts": lines}))?;
        } else {
            show(&lines)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn of_methods(&self) -> anyhow::Result<Vec<Line>> {
        if self.method.is_empty() && !self.settings.settings.is_empty() {
            bail!("--set is for a method: give --method");
        }
        let (device, registry) = (self.device.device()?, peft::registry());
        let task = Task::ClassifySequence { labels: self.labels };
        // Resolved once, for all methods.
        let model = Some(self.model.resolve([])?.directory.display().to_string());
        let model = ModelOptions { model, ..self.model };
        let of = |name: &str| {
            let Outline { model, adapter, .. } =
                Outline::new(&model, name, &self.settings, task, &device)?;
            let counts = Accounting::new(&adapter, model.base());
            let (name, method) = (name.to_string(), name.to_string());
            let published = published(&method);
            anyhow::Ok(Line { name, method, counts, measured: None, published })
        };
        if !self.method.is_empty() {
            return self.method.iter().map(|name| of(name)).collect();
        }
        let mut lines = Vec::new();
        for entry in registry.methods() {
            match of(entry.name) {
                Ok(line) => lines.push(line),
                Err(error) => tracing::info!("{}: its defaults do not fit: {error:#}", entry.name),
            }
        }
        lines.sort_by_key(|line| line.counts.trainable);
        Ok(lines)
    }

    fn of_adapter(&self, path: &Path) -> anyhow::Result<Line> {
        let device = self.device.device()?;
        let (_, adapted) = self.model.load(&AdapterPaths::one(path), &device)?;
        let Some(adapter) = adapted.adapter else { bail!("{}: no adapter", path.display()) };
        let base = adapted.model.base();
        let counts = Accounting::new(&adapter, base);
        let measured = match counts.merge_obstacle {
            Some(_) => None,
            None => Some(MeasuredCounts::new(&adapter, base, self.tolerance)?),
        };
        let method = adapter.config.method.name().to_string();
        let published = published(&method);
        Ok(Line { name: adapter_name(path), method, counts, measured, published })
    }
}

fn show(lines: &[Line]) -> std::io::Result<()> {
    let are_measured = lines.iter().any(|line| line.measured.is_some());
    let name = if are_measured { "adapter" } else { "method" };
    let mut columns = vec![
        words(name),
        numbers("trainable"),
        numbers("%"),
        numbers("changed"),
        numbers("%"),
        numbers("rank"),
        numbers("%"),
    ];
    if are_measured {
        columns.extend([numbers("changed, measured"), numbers("rank, measured")]);
    }
    columns.extend([words("papers: trainable %"), words("changed %")]);
    let row = |line: &Line| {
        let Line { counts, measured, published, .. } = line;
        let share = |percent: f64| format!("{percent:.3}");
        let mut row = vec![
            line.name.clone(),
            grouped(counts.trainable),
            share(counts.trainable_percent),
            grouped(counts.changed),
            share(counts.changed_percent),
            grouped(counts.rank),
            share(counts.rank_percent),
        ];
        if are_measured {
            let of = |of: fn(&MeasuredCounts) -> usize| {
                measured.as_ref().map_or("-".into(), |measured| grouped(of(measured)))
            };
            row.extend([of(|measured| measured.changed), of(|measured| measured.rank)]);
        }
        let of = |of: fn(PublishedCounts) -> &'static str| published.map_or("-", of).to_string();
        row.extend([of(|published| published.trainable), of(|published| published.changed)]);
        row
    };
    let mut out = stdout();
    write_table(&mut out, &columns, &lines.iter().map(row).collect::<Vec<_>>())?;
    notes(&mut out, lines)
}

/// What the numbers do not say by themselves: each note once, with the lines that it is of.
fn notes(out: &mut impl std::io::Write, lines: &[Line]) -> std::io::Result<()> {
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    let mut note = |text: String, name| match notes.iter_mut().find(|(known, _)| *known == text) {
        Some((_, names)) => names.push(name),
        None => notes.push((text, vec![name])),
    };
    for line in lines {
        if let Some(published) = line.published {
            note(format!("differs from the papers: {}", published.differs), line.name.as_str());
        }
        if let Some(obstacle) = &line.counts.merge_obstacle {
            note(
                format!("not mergeable, so that it changes its head alone: {obstacle}"),
                &line.name,
            );
        }
        if let Some(measured) = &line.measured {
            let tolerance = measured.tolerance;
            note(format!("measured with a tolerance of {tolerance:e}"), &line.name);
        }
    }
    for (text, names) in notes {
        writeln!(out, "\n{}: {text}", names.join(", "))?;
    }
    Ok(())
}
