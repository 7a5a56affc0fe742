//! The same training, once with the command `peft` and once with Hugging Face PEFT.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::{Value, json};

use crate::measure::measure;
use crate::python::python;
use crate::table;
use crate::workspace::Workspace;

/// Training epochs of a LoRA classifier: time, memory and accuracy.
///
/// `peft train` and tests/interop/train_baseline.py take turns on the same
/// files, with the same rank, batches, learning rate and seed. Times and memory are those of the
/// whole process as the operating system counts them, loading and testing included; `train s` is
/// what each says its epochs took.
#[derive(ClapArgs)]
pub struct Args {
    /// The base model's directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// `text<TAB>label` lines to train on.
    #[arg(long, value_name = "TSV")]
    train: PathBuf,
    /// `text<TAB>label` lines to measure the accuracy on.
    #[arg(long, value_name = "TSV")]
    test: PathBuf,
    /// Epochs of each training.
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// Texts in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// The learning rate to start from.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// How often each is run; the n-th run of both has the seed n - 1.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// The build profile of `peft`.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Ours,
    Reference,
}

/// One run of one side.
#[derive(Debug, Clone, Serialize)]
struct Run {
    side: Side,
    seed: usize,
    wall_seconds: f64,
    cpu_seconds: f64,
    train_seconds: f64,
    peak_bytes: u64,
    accuracy: f64,
}

/// The quantities compared, each with its unit's name in the table and its digits.
const COLUMNS: [(&str, &str, usize); 5] = [
    ("wall_seconds", "wall s", 2),
    ("cpu_seconds", "cpu s", 2),
    ("train_seconds", "train s", 2),
    ("peak_bytes", "peak MB", 1),
    ("accuracy", "accuracy", 4),
];

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.repeat > 0, "--repeat must be at least 1");
    let workspace = Workspace::find()?;
    let python = python(&workspace)?;
    // Built before anything is measured.
    let profile = ["--profile", &args.profile];
    workspace.cargo().args(["build", "--package", "peft-cli"]).args(profile).run()?;
    let mut runs = Vec::new();
    for seed in 0..args.repeat {
        // Who goes first changes, as the first may find colder caches and the second less boost.
        let order = [Side::Ours, Side::Reference];
        for side in if seed % 2 == 0 { order } else { [order[1], order[0]] } {
            runs.push(match side {
                Side::Ours => ours(&workspace, args, seed)?,
                Side::Reference => reference(&workspace, &python, args, seed)?,
            });
        }
    }
    let summary = summarize(&runs);
    if args.json {
        println!("{}", json!({"runs": runs, "summary": summary}));
    } else {
        print!("{}", table::render(&rows(&runs, &summary)));
    }
    Ok(())
}

fn ours(workspace: &Workspace, args: &Args, seed: usize) -> Result<Run> {
    let out = workspace.target.join(format!("bench/epoch/{seed}"));
    workspace.shell.remove_path(&out)?;
    let program = format!("peft{}", std::env::consts::EXE_SUFFIX);
    // The one profile whose folder has another name.
    let folder = if args.profile == "dev" { "debug" } else { &args.profile };
    let mut command = Command::new(workspace.target.join(folder).join(program));
    command.arg("train");
    common(&mut command, args, seed);
    command.args(["--task", "classify", "--columns", "text,label", "--method", "lora"]);
    command.args(["--set", "rank=8", "--set", "alpha=16", "--out"]).arg(out).arg("--json");
    measured(Side::Ours, seed, command, |result| {
        let accuracy = result.pointer("/test/accuracy").and_then(Value::as_f64);
        Some((accuracy?, result.get("train_seconds").and_then(total)?))
    })
}

fn reference(workspace: &Workspace, python: &Path, args: &Args, seed: usize) -> Result<Run> {
    let mut command = Command::new(python);
    command.arg(workspace.root.join("tests/interop/train_baseline.py"));
    common(&mut command, args, seed);
    command.args(["--rank", "8", "--alpha", "16", "--json"]);
    measured(Side::Reference, seed, command, |result| {
        let accuracy = result.get("accuracy").and_then(Value::as_f64);
        Some((accuracy?, result.get("train_seconds").and_then(total)?))
    })
}

/// The options that both have.
fn common(command: &mut Command, args: &Args, seed: usize) {
    command.arg("--model").arg(&args.model);
    command.arg("--train").arg(&args.train).arg("--test").arg(&args.test);
    command.args(["--epochs", &args.epochs.to_string()]);
    command.args(["--batch-size", &args.batch_size.to_string()]);
    command.args(["--lr", &args.lr.to_string(), "--seed", &seed.to_string()]);
}

fn measured(
    side: Side,
    seed: usize,
    mut command: Command,
    read: impl Fn(&Value) -> Option<(f64, f64)>,
) -> Result<Run> {
    let measured = measure(&mut command)?;
    let last = measured.output.lines().next_back().unwrap_or_default();
    let result: Value =
        serde_json::from_str(last).with_context(|| format!("not a JSON object: {last:?}"))?;
    let (accuracy, train_seconds) =
        read(&result).with_context(|| format!("no accuracy or no train_seconds in {last}"))?;
    Ok(Run {
        side,
        seed,
        wall_seconds: measured.seconds,
        cpu_seconds: measured.cpu_seconds,
        train_seconds,
        peak_bytes: measured.peak_bytes,
        accuracy,
    })
}

/// Seconds, given as one number or as one for each epoch.
fn total(seconds: &Value) -> Option<f64> {
    match seconds.as_array() {
        Some(epochs) => epochs.iter().map(Value::as_f64).sum(),
        None => seconds.as_f64(),
    }
}

/// The median of each quantity on each side, and ours over the reference's.
fn summarize(runs: &[Run]) -> Value {
    let of = |side: Side, quantity: &str| {
        let runs = runs.iter().filter(|run| run.side == side);
        median(runs.map(|run| json!(run)[quantity].as_f64().unwrap_or(f64::NAN)).collect())
    };
    let quantities = COLUMNS.iter().map(|(quantity, ..)| {
        let (ours, reference) = (of(Side::Ours, quantity), of(Side::Reference, quantity));
        let values = json!({"ours": ours, "reference": reference, "ratio": ours / reference});
        (quantity.to_string(), values)
    });
    Value::Object(quantities.collect())
}

fn rows(runs: &[Run], summary: &Value) -> Vec<Vec<String>> {
    let mut heads = vec!["run".to_string()];
    heads.extend(COLUMNS.iter().map(|(_, head, _)| head.to_string()));
    let line = |name: String, get: &dyn Fn(&str) -> f64| {
        let cells = COLUMNS.iter().map(|(quantity, _, digits)| {
            let value = get(quantity);
            let value = if *quantity == "peak_bytes" { value / 1e6 } else { value };
            format!("{value:.digits$}")
        });
        [name].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let name = |side| match side {
        Side::Ours => "peft train",
        Side::Reference => "Hugging Face PEFT",
    };
    let mut rows = vec![heads];
    for run in runs {
        let values = json!(run);
        let get = |quantity: &str| values[quantity].as_f64().unwrap_or(f64::NAN);
        rows.push(line(format!("{}, seed {}", name(run.side), run.seed), &get));
    }
    let number = |quantity: &str, what: &str| summary[quantity][what].as_f64().unwrap_or(f64::NAN);
    if runs.len() > 2 {
        for (side, what) in [(Side::Ours, "ours"), (Side::Reference, "reference")] {
            rows.push(line(format!("{}, median", name(side)), &|q| number(q, what)));
        }
    }
    let ratios = COLUMNS.iter().map(|(q, ..)| format!("{:.2}x", number(q, "ratio")));
    rows.push(["ours over theirs".to_string()].into_iter().chain(ratios).collect());
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(side: Side, seed: usize, wall_seconds: f64) -> Run {
        let peak_bytes = 2_000_000;
        Run {
            side,
            seed,
            wall_seconds,
            cpu_seconds: 1.0,
            train_seconds: 1.0,
            peak_bytes,
            accuracy: 0.5,
        }
    }

    #[test]
    fn medians_and_their_ratio() {
        let mut runs: Vec<Run> =
            [3.0, 1.0, 2.0].iter().enumerate().map(|(i, s)| run(Side::Ours, i, *s)).collect();
        runs.push(run(Side::Reference, 0, 4.0));
        let summary = summarize(&runs);
        assert_eq!(summary["wall_seconds"]["ours"], 2.0);
        assert_eq!(summary["wall_seconds"]["ratio"], 0.5);
        let rows = rows(&runs, &summary);
        assert_eq!(rows.last().unwrap()[1], "0.50x");
        assert_eq!(rows[1][4], "2.0");
    }

    #[test]
    fn seconds_come_as_a_number_or_by_epoch() {
        assert_eq!(total(&json!(2.5)), Some(2.5));
        assert_eq!(total(&json!([1.0, 2.0])), Some(3.0));
        assert_eq!(total(&json!("no")), None);
    }
}
