//! What continuous integration checks.

mod extension;
mod floors;
mod readme;
mod steps;
mod tidy;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;

use crate::workspace::Workspace;
use steps::STEPS;

/// Check everything that continuous integration checks, cheapest first.
///
/// Stops at the first step that fails. Nothing is installed that cargo does not install.
#[derive(ClapArgs)]
pub struct Args {
    /// List the steps and do nothing.
    #[arg(long)]
    list: bool,
    /// Only these steps; may be given several times.
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    if args.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.title);
        }
        return Ok(());
    }
    for name in &args.only {
        let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        ensure!(known.contains(&name.as_str()), "no step {name:?}; there are {}", known.join(", "));
    }
    let workspace = Workspace::find()?;
    let chosen = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let start = Instant::now();
    for step in STEPS.iter().filter(|step| chosen(step.name)) {
        eprintln!("\n== {}: {}", step.name, step.title);
        let start = Instant::now();
        let result = (step.run)(&workspace);
        let seconds = start.elapsed().as_secs_f64();
        let how = if result.is_ok() { "passed" } else { "FAILED" };
        eprintln!("== {}: {how} in {seconds:.1} s", step.name);
        result.with_context(|| format!("step {}: {}", step.name, step.title))?;
    }
    eprintln!("\nall passed in {:.1} min", start.elapsed().as_secs_f64() / 60.0);
    Ok(())
}
