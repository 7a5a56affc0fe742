#![doc = include_str!("../README.md")]

mod bench;
mod ci;
mod device;
mod interop;
mod manifest;
mod measure;
mod new_method;
mod python;
mod table;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The workspace's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything that continuous integration checks, cheapest first.
    Ci(ci::Args),
    /// Run the parity and conformance suites on one device.
    Test(device::Args),
    /// Write adapters and load them with Hugging Face PEFT.
    Interop(interop::Args),
    /// Measure against Hugging Face PEFT.
    Bench(bench::Args),
    /// Start a new method crate, from a template that works as it is.
    NewMethod(new_method::Args),
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Ci(args) => ci::run(&args),
        Task::Test(args) => device::run(&args),
        Task::Interop(args) => interop::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::NewMethod(args) => new_method::run(&args),
    }
}
