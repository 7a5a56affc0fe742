//! `peft methods`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::output::print_json;

/// List the methods that --method knows, with their settings.
#[derive(Args)]
pub struct Methods {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Methods {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let registry = peft::registry();
        let mut rows = Vec::new();
        for entry in registry.methods() {
            let config = registry.configure(entry.name, Map::new())?;
            if self.json {
                rows.push(json!({
                    "name": entry.name,
                    "peft_type": entry.peft_type,
                    "about": entry.about,
                    "learning_rate": config.learning_rate(),
                    "settings": Value::Object(config.to_fields()),
                }));
            } else {
                println!("{:8} {:10} {}", entry.name, entry.peft_type, entry.about);
            }
        }
        if self.json {
            print_json(&json!({"methods": rows}))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
