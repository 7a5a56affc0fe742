//! Every method on real data: accuracy, counts, time and memory.

mod data;
mod page;
mod run;
mod store;
mod timing;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde_json::Value;

use crate::workspace::Workspace;
use data::Data;
use run::Configuration;
use store::Store;

/// Trains methods on data sets with several seeds, and makes a page of the book from all that was
/// measured: docs/src/methods-measured.md.
///
/// Each result is kept as a line of docs/src/methods-measured.jsonl, and what is there is not run
/// again: a long table can be made in several goes. Accuracies do not mind other work on the machine;
/// times and memory do, and are measured apart, with --time, when nothing else runs.
#[derive(ClapArgs)]
pub struct Args {
    /// A directory, a hub id, or a short name.
    #[arg(long, default_value = "minilm")]
    model: String,
    /// A directory with train.tsv, and with dev.tsv and test.tsv or one of them; its name is that of
    /// the data set. May be given several times.
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Only these methods, by name [default: all that fit the model].
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    methods: Vec<String>,
    /// Settings of the methods, as `peft train --set` takes them.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Learning rates [default: each method's own].
    #[arg(long, value_name = "RATES", value_delimiter = ',')]
    rates: Vec<f64>,
    /// A training for each of these.
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Epochs of each training.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Texts in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Measure the time of an epoch, its memory, and the time of inference, instead of accuracies.
    #[arg(long)]
    time: bool,
    /// Make the page from what was measured, and measure nothing.
    #[arg(long)]
    page: bool,
    /// Where the results are kept; the page is beside them.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let kept = || workspace.root.join("docs/src/methods-measured.jsonl");
    let mut store = Store::open(args.results.clone().unwrap_or_else(kept))?;
    if !args.page {
        ensure!(!args.data.is_empty(), "nothing to train on: give --data");
        workspace.cargo().args(["build", "--release", "--package", "peft-cli"]).run()?;
        let program =
            workspace.target.join(format!("release/peft{}", std::env::consts::EXE_SUFFIX));
        let names = match &args.methods[..] {
            [] => all_methods(&program, &args.model)?,
            names => names.to_vec(),
        };
        let data: Vec<Data> =
            args.data.iter().map(|path| Data::open(path)).collect::<Result<_>>()?;
        let configurations = configurations(args, &names);
        if args.time {
            for data in &data {
                timing::measure(&program, &configurations, data, &mut store)?;
            }
        } else {
            // All methods once before any a second time: what is cut off is a table nevertheless.
            for (seed, data) in
                args.seeds.iter().flat_map(|seed| data.iter().map(move |d| (seed, d)))
            {
                for configuration in &configurations {
                    run::train(&program, configuration, data, *seed, &mut store)?;
                }
            }
        }
    }
    let page = page::render(&store);
    let path = store.path().with_extension("md");
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}

/// Each method at each rate.
fn configurations(args: &Args, names: &[String]) -> Vec<Configuration> {
    let rates: Vec<Option<f64>> = match &args.rates[..] {
        [] => vec![None],
        rates => rates.iter().copied().map(Some).collect(),
    };
    let of = |method: &String, lr: Option<f64>| Configuration {
        model: args.model.clone(),
        method: method.clone(),
        settings: args.settings.clone(),
        lr,
        epochs: if args.time { 1 } else { args.epochs },
        batch_size: args.batch_size,
    };
    names.iter().flat_map(|name| rates.iter().map(move |lr| of(name, *lr))).collect()
}

/// The methods that train by themselves, with defaults that fit the model.
fn all_methods(program: &std::path::Path, model: &str) -> Result<Vec<String>> {
    let listed = output(Command::new(program).args(["counts", "--json", "--model", model]))?;
    let listed = listed["counts"].as_array().context("peft counts lists methods")?;
    Ok(listed.iter().filter_map(|line| line["method"].as_str()).map(String::from).collect())
}

/// The JSON object that a command prints last.
fn output(command: &mut Command) -> Result<Value> {
    let run = command.output().context("peft cannot be run")?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    last_object(&String::from_utf8_lossy(&run.stdout))
}

fn last_object(output: &str) -> Result<Value> {
    let last = output.lines().next_back().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("not a JSON object: {last:?}"))
}
