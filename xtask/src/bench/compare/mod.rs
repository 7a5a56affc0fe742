//! Our training, inference and generation beside that of others, as a page of the book.

mod case;
pub mod machine;
mod page;
mod results;
mod rows;
mod setup;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;

use crate::measure::measure;
use case::{Case, Run};
use results::{Outcome, Results};
use setup::Setup;

/// Steps of each run that are not counted.
const WARM_UP: usize = 2;

/// Training, inference and generation beside the same in other libraries: docs/src/benchmarks.md.
///
/// Without names, everything is measured; a name is that of a row (`step`) or of one case in it
/// (`step/lora`). The results of other cases stay as they are, in docs/src/benchmarks.json, from
/// which the page is made. `memory` are the rows in which memory is compared.
#[derive(ClapArgs)]
pub struct Args {
    /// Rows or cases; see --list.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print the names of all cases, and measure nothing.
    #[arg(long)]
    list: bool,
    /// How often each program is run.
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeat: usize,
    /// One run of each program, with few steps; nothing is kept, unless --results says where.
    #[arg(long)]
    quick: bool,
    /// Make the page from what was measured, and measure nothing.
    #[arg(long)]
    page: bool,
    /// The directory of the six-layer encoder [default: that of `peft fetch minilm`].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// `text<TAB>label` lines to train on, for `epoch`.
    #[arg(long, value_name = "TSV")]
    train: Option<PathBuf>,
    /// `text<TAB>label` lines to measure the accuracy on, for `epoch`.
    #[arg(long, value_name = "TSV")]
    test: Option<PathBuf>,
    /// Only so many of the lines of --train.
    #[arg(long, value_name = "LINES")]
    limit: Option<usize>,
    /// Where the results are kept [default: docs/src/benchmarks.json]; the page is beside them.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let catalogue = rows::catalogue();
    if args.list {
        catalogue.iter().for_each(|entry| println!("{}", entry.name));
        return Ok(());
    }
    ensure!(args.repeat > 0, "--repeat must be at least 1");
    for name in &args.names {
        if !catalogue.iter().any(|entry| is_named(name, entry.name)) {
            bail!("no row or case {name:?}; --list shows them");
        }
    }
    let setup = Setup::new(args)?;
    let path = args.results.clone();
    let path = path.unwrap_or_else(|| setup.workspace.root.join("docs/src/benchmarks.json"));
    let mut results = Results::load(&path)?;
    let is_kept = !args.quick || args.results.is_some();
    let is_chosen = |name: &str| {
        args.names.is_empty() || args.names.iter().any(|chosen| is_named(chosen, name))
    };
    if !args.page {
        setup.build()?;
        let versions = machine::versions(&setup.python()?)?;
        for entry in catalogue.iter().filter(|entry| is_chosen(entry.name)) {
            let case = match (entry.case)(&setup) {
                Ok(case) => case,
                // What is measured without being named may need what was not given.
                Err(error) if args.names.is_empty() => {
                    eprintln!("{}: {error:#}", entry.name);
                    continue;
                }
                Err(error) => return Err(error).context(entry.name),
            };
            let outcome = outcome(&case, &setup, &versions)?;
            results.0.insert(case.name.clone(), outcome);
            // At once: a later one may fail.
            if is_kept {
                results.save(&path)?;
                std::fs::write(path.with_extension("md"), page::render(&results))?;
            }
            println!("{}", page::table(&case.name, &results.0[&case.name]));
        }
    }
    if args.page {
        std::fs::write(path.with_extension("md"), page::render(&results))?;
    }
    Ok(())
}

/// Whether a name of the user's means a case.
fn is_named(chosen: &str, case: &str) -> bool {
    let row = case.split('/').next().unwrap_or(case);
    let has_memory = chosen == "memory" && ["step", "epoch", "causal"].contains(&row);
    chosen == case || chosen == row || has_memory
}

/// Runs the programs of a case in turns. One that fails is left out from then on.
fn outcome(case: &Case, setup: &Setup, versions: &str) -> Result<Outcome> {
    let mut runs: Vec<Vec<Run>> = case.sides.iter().map(|_| Vec::new()).collect();
    let mut failed: Vec<Option<String>> = vec![None; case.sides.len()];
    let (repeat, mut disturbed) = (setup.repeat(), 0);
    for round in 0..repeat {
        // Who goes first changes, as the first may find colder caches and the second less boost.
        for place in 0..case.sides.len() {
            let side = (place + round) % case.sides.len();
            if failed[side].is_some() {
                continue;
            }
            if !machine::is_quiet() {
                eprintln!("something else is running; this will be slower than it is");
                disturbed += 1;
            }
            match run_one(case, side, round) {
                Ok(run) => runs[side].push(run),
                Err(error) => {
                    eprintln!("{}, {}: {error:#}", case.name, case.sides[side].name);
                    failed[side] = Some(case.sides[side].name.clone());
                }
            }
        }
    }
    Ok(Outcome {
        about: case.about.clone(),
        date: machine::today(),
        commit: machine::commit(&setup.workspace),
        machine: machine::processor(),
        versions: case.versions.clone().unwrap_or_else(|| versions.into()),
        repeat,
        disturbed,
        failed: failed.into_iter().flatten().collect(),
        figures: results::compared(case, &runs),
    })
}

fn run_one(case: &Case, side: usize, round: usize) -> Result<Run> {
    let measured = measure(&mut (case.sides[side].command)(round)?)?;
    let last = measured.output.lines().next_back().unwrap_or_default();
    let result =
        serde_json::from_str(last).with_context(|| format!("not a JSON object: {last:?}"))?;
    Ok(Run { measured, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_all_of_its_cases() {
        assert!(is_named("step", "step/lora") && is_named("step/lora", "step/lora"));
        assert!(!is_named("step/lora", "step/bf16") && !is_named("ste", "step/lora"));
        assert!(is_named("memory", "causal/lora") && !is_named("memory", "switch/lora"));
    }
}
