//! Every method on the same data: accuracy, counts, time and memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::measure::measure;
use crate::table;
use crate::workspace::Workspace;

/// Trains each method at its default setting on one data set, and prints a table.
///
/// What a method gave is kept in --out (`METHOD/measured.json`), and a method that is there is not
/// run again: a long table can be made in several goes. Times are the whole process's, so nothing
/// else should run beside it.
#[derive(ClapArgs)]
pub struct Args {
    /// A directory, a hub id, or a short name.
    #[arg(long, default_value = "minilm")]
    model: String,
    /// Texts to train on.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Texts that choose the epoch.
    #[arg(long, value_name = "FILE")]
    valid: PathBuf,
    /// Texts to measure the accuracy on.
    #[arg(long, value_name = "FILE")]
    test: PathBuf,
    /// The columns of the files.
    #[arg(long, default_value = "text,label")]
    columns: String,
    /// Epochs of each training.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Texts in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// The seed of each training.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only these methods, by name.
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    methods: Vec<String>,
    /// Where the runs are kept.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What one method gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    method: String,
    accuracy: f64,
    trainable: u64,
    changed: u64,
    rank: u64,
    mergeable: bool,
    train_seconds: f64,
    peak_bytes: u64,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    workspace.cargo().args(["build", "--release", "--package", "peft-cli"]).run()?;
    let program = workspace.target.join(format!("release/peft{}", std::env::consts::EXE_SUFFIX));
    let mut names = args.methods.clone();
    if names.is_empty() {
        let methods = output(Command::new(&program).args(["methods", "--json"]))?;
        let methods = methods["methods"].as_array().context("peft methods lists methods")?;
        names = methods.iter().filter_map(|m| m["name"].as_str()).map(String::from).collect();
        // A fusion is over other adapters.
        names.retain(|name| name != "fusion");
    }
    let mut rows = vec![
        ["method", "accuracy", "trainable", "changed", "rank", "seconds", "peak MB"]
            .map(String::from)
            .to_vec(),
    ];
    for name in names {
        let measured = measured(&program, args, &name)?;
        let if_merged =
            |count: u64| if measured.mergeable { count.to_string() } else { "-".into() };
        rows.push(vec![
            measured.method.clone(),
            format!("{:.4}", measured.accuracy),
            measured.trainable.to_string(),
            if_merged(measured.changed),
            if_merged(measured.rank),
            format!("{:.0}", measured.train_seconds),
            format!("{:.0}", measured.peak_bytes as f64 / 1e6),
        ]);
        println!("{}", table::render(&rows));
    }
    Ok(())
}

fn measured(program: &Path, args: &Args, method: &str) -> Result<Measured> {
    let folder = args.out.join(method);
    let kept = folder.join("measured.json");
    if let Ok(text) = std::fs::read(&kept) {
        return serde_json::from_slice(&text).with_context(|| kept.display().to_string());
    }
    let counts = output(Command::new(program).args([
        "inspect",
        "--model",
        &args.model,
        "--method",
        method,
        "--json",
    ]))?;
    let mut train = Command::new(program);
    train.args(["train", "--resume", "--json", "--model", &args.model, "--method", method]);
    train.arg("--train").arg(&args.train).arg("--valid").arg(&args.valid);
    train.arg("--test").arg(&args.test).args(["--columns", &args.columns]);
    train.args(["--epochs", &args.epochs.to_string(), "--seed", &args.seed.to_string()]);
    train.args(["--batch-size", &args.batch_size.to_string()]).arg("--out").arg(folder);
    let run = measure(&mut train)?;
    let result = last_object(&run.output)?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let measured = Measured {
        method: method.into(),
        accuracy: result.pointer("/test/accuracy").and_then(Value::as_f64).context("accuracy")?,
        trainable: number(&counts["trainable"]),
        changed: number(&counts["changed"]),
        rank: number(&counts["rank"]),
        mergeable: counts["merge_obstacle"].is_null(),
        train_seconds: result["train_seconds"].as_f64().context("train_seconds")?,
        peak_bytes: run.peak_bytes,
    };
    std::fs::write(&kept, serde_json::to_string_pretty(&measured)?)?;
    Ok(measured)
}

fn output(command: &mut Command) -> Result<Value> {
    let run = command.output().context("peft cannot be run")?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    last_object(&String::from_utf8_lossy(&run.stdout))
}

/// The JSON object that the command prints last.
fn last_object(output: &str) -> Result<Value> {
    let last = output.lines().next_back().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("not a JSON object: {last:?}"))
}
