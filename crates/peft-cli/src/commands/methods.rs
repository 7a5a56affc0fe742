//! `peft methods`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use peft::core::{ComputationFunction, num_trainable};
use peft::models::Task;
use serde_json::{Map, Value, json};

use crate::options::{DeviceOptions, ModelOptions, SettingOptions};
use crate::outline::Outline;
use crate::output::{grouped, print_json, stdout};
use crate::table::{numbers, words, write_table};

/// List the methods that --method knows: how they compose with the model, where, what they train,
/// whether they can be merged, and which files carry them.
#[derive(Args)]
pub struct Methods {
    /// One line for each method; with --model the number of values that it trains there by default
    #[arg(long)]
    table: bool,
    /// The column that the table is sorted by
    #[arg(long, value_name = "COLUMN", default_value = "name", requires = "table")]
    sort: Column,
    /// A directory, a Hugging Face id (`owner/name`, `owner/name@revision`), or a short name
    /// (`minilm`)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Use local directories and the cache only; download nothing
    #[arg(long, requires = "model")]
    offline: bool,
    /// Print one JSON object, with every setting and its default
    #[arg(long)]
    json: bool,
}

/// A column of the table.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    /// What --method is given
    Name,
    /// How it composes with the model
    Family,
    /// Whether it can be merged
    Merges,
    /// Whose files carry it
    Files,
    /// The values that it trains by default, with --model
    Trainable,
}

/// What is said of a method.
struct Line {
    name: &'static str,
    family: String,
    merges: &'static str,
    files: &'static str,
    /// `None` where no model is named, or the defaults do not fit it.
    trainable: Option<usize>,
    entry: Value,
}

impl Methods {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.sort == Column::Trainable && self.model.is_none() {
            bail!("--sort trainable needs --model: how many values are trained depends on it");
        }
        let (registry, model) = (peft::registry(), self.model()?);
        let (mut lines, mut out) = (Vec::new(), stdout());
        for entry in registry.methods() {
            let config = registry.configure(entry.name, Map::new())?;
            let functions = entry.card.functions.iter().map(|function| match function {
                ComputationFunction::Parameter => "parameter",
                ComputationFunction::Input => "input",
                ComputationFunction::Function => "function",
            });
            let family = functions.collect::<Vec<_>>().join(" + ");
            let trainable = match &model {
                Some(model) => trainable(entry.name, model)?,
                None => None,
            };
            if !self.json && !self.table {
                writeln!(out, "{} ({}): {}", entry.name, entry.peft_type, entry.about)?;
                let lr = format!("{:e}", config.learning_rate());
                let lines = [
                    ("composition", family.as_str()),
                    ("sites", entry.card.sites),
                    ("trainable", entry.card.trainable),
                    ("merges", entry.card.merges),
                    ("files", entry.card.formats),
                    ("learning rate", &lr),
                ];
                for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
                    writeln!(out, "    {name:14} {value}")?;
                }
                continue;
            }
            lines.push(Line {
                name: entry.name,
                family,
                merges: entry.card.merges,
                files: entry.card.formats,
                trainable,
                entry: json!({
                    "name": entry.name,
                    "peft_type": entry.peft_type,
                    "about": entry.about,
                    "card": entry.card,
                    "learning_rate": config.learning_rate(),
                    "trainable": trainable,
                    "settings": Value::Object(config.to_fields()),
                }),
            });
        }
        lines.sort_by(|a, b| match self.sort {
            Column::Name => a.name.cmp(b.name),
            Column::Family => a.family.cmp(&b.family),
            Column::Merges => b.merges.cmp(a.merges),
            Column::Files => a.files.cmp(b.files),
            Column::Trainable => a.trainable.cmp(&b.trainable),
        });
        if self.json {
            let rows: Vec<Value> = lines.into_iter().map(|line| line.entry).collect();
            print_json(&json!({"methods": rows}))?;
        } else if self.table {
            table(&lines, &mut out)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The directory of the model that is named, if one is.
    fn model(&self) -> anyhow::Result<Option<ModelOptions>> {
        if self.model.is_none() {
            return Ok(None);
        }
        let named =
            ModelOptions { model: self.model.clone(), offline: self.offline, load_in: None };
        // Resolved once, for all methods.
        let directory = named.resolve([])?.directory.display().to_string();
        Ok(Some(ModelOptions { model: Some(directory), ..named }))
    }
}

/// The values that a method trains by default over a model, its head apart; `None` where its defaults
/// do not fit.
fn trainable(method: &str, model: &ModelOptions) -> anyhow::Result<Option<usize>> {
    let (none, task) =
        (SettingOptions { settings: Vec::new() }, Task::ClassifySequence { labels: 2 });
    let device = DeviceOptions { device: None }.device()?;
    let outline = Outline::new(model, method, &none, task, &device);
    Ok(outline.ok().map(|outline| num_trainable(&outline.adapter.parts().1)))
}

fn table(lines: &[Line], out: &mut impl Write) -> std::io::Result<()> {
    let mut columns = vec![words("method"), words("family"), words("merges"), words("files")];
    let has_counts = lines.iter().any(|line| line.trainable.is_some());
    if has_counts {
        columns.push(numbers("trainable"));
    }
    let row = |line: &Line| {
        // A card says more than a word; the first is the answer.
        let merges = line.merges.split([',', ':', ';', ' ']).next().unwrap_or_default();
        let row = [line.name, &line.family, merges, line.files].map(String::from);
        let trainable = has_counts.then(|| line.trainable.map_or("-".into(), grouped));
        row.into_iter().chain(trainable).collect()
    };
    write_table(out, &columns, &lines.iter().map(row).collect::<Vec<_>>())
}
