//! `peft devices`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::output::{print_json, stdout};

/// List the devices that this program was compiled for, the default first.
#[derive(Args)]
pub struct Devices {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let names = peft::device_names();
        if self.json {
            print_json(&json!({"devices": names, "default": names.first()}))?;
        } else {
            let mut out = stdout();
            for name in names {
                writeln!(out, "{name}")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
