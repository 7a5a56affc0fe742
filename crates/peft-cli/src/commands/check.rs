//! `peft check`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use peft::train::AdaptedModel;

use crate::options::{DeviceOptions, ModelOptions, adapter_parser};
use crate::output::{print_json, stdout};

/// Check an adapter directory against a model.
///
/// Lists every missing, unexpected or mis-shaped key and every target that matches nothing, and
/// exits with 1 if there is one.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    model: ModelOptions,
    /// The adapter's directory
    #[arg(long, value_name = "DIR", value_parser = adapter_parser())]
    adapter: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Check {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let device = self.device.device()?;
        let resolved = self.model.resolve([&self.adapter])?;
        let registry = peft::registry();
        let found = AdaptedModel::check(&resolved.directory, &self.adapter, &registry, &device)?;
        if self.json {
            print_json(&found)?;
        } else {
            let mut out = stdout();
            for problem in &found.problems {
                writeln!(out, "{problem}")?;
            }
            for target in &found.unmatched {
                writeln!(out, "{target}")?;
            }
            let problems = found.problems.len() + found.unmatched.len();
            writeln!(out, "{} tensors expected, {problems} problems", found.expected.len())?;
        }
        Ok(if found.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
