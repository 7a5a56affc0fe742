//! `peft predict`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use burn::module::Module;
use clap::Args;
use peft::core::Hooks;
use peft::train::data::{Columns, Dataset, Example, Goal, read_records};
use peft::train::metrics::Output;
use peft::train::{TaskFile, predict};
use serde_json::{Map, Value, json};

use crate::data::Tokens;
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, known_task};
use crate::output::print_json;

/// Label texts, given as arguments, in a file, or both.
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Texts: .tsv, .csv, .jsonl; labels are not read
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The columns of the file [default: those of the training data]
    #[arg(long)]
    columns: Option<Columns>,
    /// The texts
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Examples in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Predict {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.texts.is_empty() && self.data.is_none() {
            bail!("nothing to label: give texts, or a file with --data");
        }
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let device = self.device.device()?;
        let runs = self.adapters.runs();
        let mut labelled = Vec::new();
        for paths in &runs {
            let (resolved, adapted) = self.model.load(paths, &device)?;
            let task = known_task(adapted.task)?;
            let examples = self.examples(&task)?;
            let dataset = Dataset { examples, labels: task.labels.clone() };
            let tokens = Tokens::load(&resolved.directory, task.max_length, &adapted.model)?;
            let data = tokens.of(&dataset)?;
            let method = adapted.adapter.map(|adapter| adapter.method.valid());
            let hooks: &dyn Hooks = method.as_ref().map_or(&(), |method| method);
            let outputs = predict(&adapted.model, hooks, &data, self.batch_size)?;
            let rows = dataset.examples.iter().zip(&outputs).map(|(e, o)| row(e, o, &task));
            labelled.extend(rows.map(|mut row| {
                if let (Some(adapter), true) = (paths.adapters.last(), runs.len() > 1) {
                    row.insert("adapter".into(), json!(adapter));
                }
                row
            }));
        }
        if self.json {
            print_json(&json!({"predictions": labelled}))?;
            return Ok(ExitCode::SUCCESS);
        }
        for row in labelled {
            let label = row["label"].as_str().map(String::from);
            let label =
                label.unwrap_or_else(|| format!("{:.4}", row["value"].as_f64().unwrap_or(0.0)));
            let score = row.get("score").and_then(Value::as_f64);
            let score = score.map_or(String::new(), |score| format!("{score:.4}\t"));
            let adapter = row.get("adapter").and_then(Value::as_str);
            let adapter = adapter.map_or(String::new(), |adapter| format!("{adapter}\t"));
            println!("{adapter}{label}\t{score}{}", row["text"].as_str().unwrap_or(""));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn examples(&self, task: &TaskFile) -> anyhow::Result<Vec<Example>> {
        let given =
            self.texts.iter().map(|text| Example { text: text.clone(), pair: None, target: None });
        let mut examples: Vec<Example> = given.collect();
        if let Some(path) = &self.data {
            // A file may lack the label column that the training data had.
            let columns = self.columns.as_ref().unwrap_or(&task.columns);
            let records = match read_records(path, &columns.without_label()) {
                Ok(records) => records,
                Err(_) => read_records(path, columns)?,
            };
            examples.extend(records.into_iter().map(|record| Example {
                text: record.text,
                pair: record.pair,
                target: None,
            }));
        }
        Ok(examples)
    }
}

fn row(example: &Example, output: &Output, task: &TaskFile) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("text".into(), json!(example.text));
    if let Some(pair) = &example.pair {
        row.insert("pair".into(), json!(pair));
    }
    match task.labels.goal {
        Goal::MaskedLm => unreachable!("refused when the outputs were made"),
        Goal::Regress => {
            row.insert("value".into(), json!(output.logits[0]));
        }
        Goal::Classify => {
            let class = output.class();
            let name = |i: usize| task.labels.names.get(i).cloned().unwrap_or(format!("LABEL_{i}"));
            let p = output.probabilities();
            row.insert("label".into(), json!(name(class)));
            row.insert("score".into(), json!(p[class]));
            let scores = p.iter().enumerate().map(|(i, p)| (name(i), json!(p))).collect();
            row.insert("scores".into(), Value::Object(scores));
        }
    }
    row
}
