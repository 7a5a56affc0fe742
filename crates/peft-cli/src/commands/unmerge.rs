//! `peft unmerge`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use peft::format::unmerged_tensors;
use peft::train::AdapterPaths;
use serde_json::json;

use super::merge::{TypeName, write_model};
use crate::models::resolve;
use crate::options::{DeviceOptions, ModelOptions, adapter_parser};
use crate::output::{print_json, refuse_used, shown, stdout, write_new};

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
    #[arg(long, value_name = "DIR", value_parser = adapter_parser())]
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
        let (from, count) = (&resolved.directory, tensors.len());
        write_new(&self.out, || write_model(&self.out, from, &adapted, tensors, TypeName::F32))?;
        if self.json {
            print_json(&json!({"out": shown(&self.out), "tensors": count, "kept": kept}))?;
        } else {
            let mut out = stdout();
            writeln!(out, "{}: {count} tensors", self.out.display())?;
            if !kept.is_empty() {
                writeln!(out, "left with the values of the adapter: {}", kept.join(", "))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
