//! `peft convert`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use peft::train::{AdapterPaths, TASK_FILE};
use serde_json::json;

use super::merge::keep_files;
use crate::options::{DeviceOptions, ModelOptions, adapter_parser};
use crate::output::{print_json, refuse_used, shown, stdout, write_new};

/// Rewrite an adapter for the other library: Hugging Face PEFT, or adapter-hub/adapters.
#[derive(Args)]
pub struct Convert {
    #[command(flatten)]
    model: ModelOptions,
    /// The adapter's directory, in either layout
    #[arg(long, value_name = "DIR", value_parser = adapter_parser())]
    adapter: PathBuf,
    /// The layout to write
    #[arg(long, value_name = "LAYOUT")]
    to: LayoutName,
    /// The adapter's name, which adapter-hub/adapters writes into its files
    #[arg(long, default_value = "default")]
    name: String,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutName {
    /// Hugging Face PEFT
    Peft,
    /// adapter-hub/adapters
    Adapters,
}

impl Convert {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        refuse_used(&self.out)?;
        let device = self.device.device()?;
        let (resolved, adapted) = self.model.load(&AdapterPaths::one(&self.adapter), &device)?;
        let adapter = adapted.adapter.context("an adapter was asked for")?;
        let model = adapted.model;
        write_new(&self.out, || {
            // First: a directory that says it is an adapter has all of it.
            keep_files(&self.adapter, &self.out)?;
            adapted.added_tokens.save(&self.out)?;
            if let (true, Some(task)) = (self.adapter.join(TASK_FILE).exists(), &adapted.task) {
                task.save(&self.out)?;
            }
            match self.to {
                LayoutName::Peft => adapter.save(&self.out, model.base())?,
                LayoutName::Adapters => {
                    let name = adapter.config.base_model_name_or_path.clone();
                    let described = model.adapters_model(&name.unwrap_or(resolved.name));
                    adapter.save_as_adapters(&self.out, &self.name, &described, model.base())?;
                }
            }
            Ok(())
        })?;
        if self.json {
            print_json(&json!({"out": shown(&self.out), "method": adapter.config.method.name()}))?;
        } else {
            writeln!(stdout(), "{}: {}", self.out.display(), adapter.config.method.name())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
