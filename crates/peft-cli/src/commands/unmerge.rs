//! `peft unmerge`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use peft::format::unmerged_tensors;
use peft::train::AdapterPaths;
use serde_json::json;

use super::merge::write_model;
use crate::models::resolve;
use crate::options::{DeviceOptions, ModelOptions};
use crate::output::{print_json, refuse_used, stdout};

/// Take an adapter out of a merged model again.
///
/// Exact up to one rounding of each weight. What the adapter replaced as a whole, such as a head or
/// a bias, cannot be recovered: it keeps the values of the adapter, and is listed. If you still have
/// the base, use that: merging never changes it.
#[derive(Args)]
pub struct Unmerge {
    #[command(flatten)]
    model: ModelOptions,
    /// The adapter that was merged
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Unmerge {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        refuse_used(&self.out)?;
        let device = self.device.device()?;
        // The adapter's own base is what it is not in.
        let merged = self.model.model.as_ref().context("give the merged model with --model")?;
        let resolved = resolve(merged, self.model.offline)?;
        let adapter = AdapterPaths::one(&self.adapter);
        let adapted = self.model.load_from(&resolved, &adapter, &device)?;
        let adapter = adapted.adapter.as_ref().context("an adapter was asked for")?;
        let (tensors, kept) = unmerged_tensors(adapter, adapted.model.base())?;
        write_model(&self.out, &resolved.directory, &adapted, &tensors)?;
        if self.json {
            print_json(&json!({"out": self.out, "tensors": tensors.len(), "kept": kept}))?;
        } else {
            let mut out = stdout();
            writeln!(out, "{}: {} tensors", self.out.display(), tensors.len())?;
            if !kept.is_empty() {
                writeln!(out, "left with the values of the adapter: {}", kept.join(", "))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
