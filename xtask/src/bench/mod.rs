//! Measurements.

mod compare;
mod epoch;
mod methods;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};

/// Measure methods, and against Hugging Face PEFT.
///
/// The environment variable PEFT_PYTHON may name a Python that has the packages of
/// tests/interop/requirements.txt; without it, they are installed into a virtual environment.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Compare(compare::Args),
    Epoch(epoch::Args),
    Methods(methods::Args),
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Compare(args) => compare::run(args),
        What::Epoch(args) => epoch::run(args),
        What::Methods(args) => methods::run(args),
    }
}
