//! `peft fetch`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::models::resolve;
use crate::output::{print_json, shown, stdout};

/// Fetch a model into the cache and print where it is.
#[derive(Args)]
pub struct Fetch {
    /// A Hugging Face id or a short name
    #[arg(value_name = "MODEL", default_value = "minilm")]
    model: String,
    /// Download nothing; only print where it is
    #[arg(long)]
    offline: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Fetch {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let found = resolve(&self.model, self.offline)?;
        found.check_is_whole()?;
        if self.json {
            print_json(&json!({"model": found.name, "directory": shown(&found.directory)}))?;
        } else {
            writeln!(stdout(), "{}", found.directory.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
