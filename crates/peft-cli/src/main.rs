#![doc = include_str!("../README.md")]
// They panic on a closed pipe; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod backend;
mod builtin;
mod commands;
mod data;
mod heatmap;
mod input;
mod loaded;
mod models;
mod options;
mod outline;
mod output;
mod plot;
mod progress;
mod prompt;
mod run_file;
mod stop;
mod table;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands::{
    check, compose, convert, counts, devices, estimate, eval, fetch, forward, generate, inspect,
    merge, methods, observe, predict, subspace, train, unmerge,
};
use crate::output::stdout;

/// Every operation allocates and frees large tensors: keeping their blocks saves a third of a
/// training step.
#[global_allocator]
static ALLOCATOR: peft_kernels::TensorAllocator = peft_kernels::TensorAllocator;

/// Parameter-efficient fine-tuning of pretrained transformers.
///
/// `peft train --out runs/first` fine-tunes a small model on a built-in data set; everything else
/// is a flag, or a line of a run file.
#[derive(Parser)]
#[command(name = "peft", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Show more detail; -vv shows everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Train an adapter on labelled texts
    Train(Box<train::Train>),
    /// Measure an adapter (or a model) on labelled texts
    Eval(eval::Eval),
    /// Label texts
    Predict(predict::Predict),
    /// Continue a prompt, or transform a text
    Generate(Box<generate::Generate>),
    /// Fold an adapter into its model: a Hugging Face checkpoint directory
    Merge(merge::Merge),
    /// Take an adapter out of a merged model again
    Unmerge(unmerge::Unmerge),
    /// Show what a method would train: sites, shapes, the three counts, bytes
    Inspect(inspect::Inspect),
    /// Show what methods train and change beside the papers' figures, or what an adapter did change
    Counts(counts::Counts),
    /// Show what training would take: memory by part, time of a step
    Estimate(estimate::Estimate),
    /// Check an adapter directory against a model, key by key
    Check(check::Check),
    /// Rewrite an adapter for the other library: Hugging Face PEFT, adapter-hub/adapters
    Convert(convert::Convert),
    /// Put several adapters, and how they are composed, into one directory
    Compose(compose::Compose),
    /// Find a subspace between the prompts of several tasks, for `--method ipt`
    Subspace(subspace::Subspace),
    /// Show what gates and fusions decide on texts, and plot it
    Observe(observe::Observe),
    /// Fetch a model and print where it is
    Fetch(fetch::Fetch),
    /// Run a model on token indices from a safetensors file
    Forward(forward::Forward),
    /// List the methods
    Methods(methods::Methods),
    /// List the devices that this program was compiled for
    Devices(devices::Devices),
}

fn main() -> ExitCode {
    backend::read_no_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return shown(&error),
    };
    let level = [
        "warn",
        "peft=info,peft_core=info,peft_data=info,peft_models=info,peft_train=info,warn",
        "debug",
    ];
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(level[usize::from(cli.verbose).min(2)]));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::stderr)
        // Colours are escape sequences, and would be in files where standard error is one.
        .with_ansi(false)
        .without_time()
        .with_target(false)
        // It would be to standard error, which may be what has failed.
        .log_internal_errors(false)
        .init();
    let result = match cli.command {
        Command::Train(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Compose(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Subspace(command) => command.run(),
        Command::Observe(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Merge(command) => command.run(),
        Command::Unmerge(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Counts(command) => command.run(),
        Command::Estimate(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Fetch(command) => command.run(),
        Command::Forward(command) => command.run(),
        Command::Methods(command) => command.run(),
        Command::Devices(command) => command.run(),
    };
    // A line that was begun may still be held back.
    let result = result.and_then(|code| {
        stdout().flush()?;
        Ok(code)
    });
    match result {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Shows a help text, or what is wrong with the flags.
fn shown(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(error.exit_code() as u8);
    if error.use_stderr() {
        output::note(error.render().to_string().trim_end());
        return code;
    }
    match error.print() {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
