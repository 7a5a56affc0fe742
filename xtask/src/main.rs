#![doc = include_str!("../README.md")]

mod bench;
mod ci;
mod device;
mod faults;
mod fuzz;
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

// Each task's arguments carry its description.
#[derive(Subcommand)]
enum Task {
    Ci(ci::Args),
    Test(device::Args),
    Interop(interop::Args),
    Fuzz(fuzz::Args),
    Bench(bench::Args),
    Faults(faults::Args),
    NewMethod(new_method::Args),
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Ci(args) => ci::run(&args),
        Task::Test(args) => device::run(&args),
        Task::Interop(args) => interop::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Faults(args) => faults::run(&args),
        Task::NewMethod(args) => new_method::run(&args),
    }
}
