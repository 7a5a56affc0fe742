//! `peft methods`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use peft::core::ComputationFunction;
use serde_json::{Map, Value, json};

use crate::output::{print_json, stdout};

/// List the methods that --method knows: how they compose with the model, where, what they train,
/// whether they can be merged, and which files carry them.
#[derive(Args)]
pub struct Methods {
    /// Print one JSON object, with every setting and its default
    #[arg(long)]
    json: bool,
}

impl Methods {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let registry = peft::registry();
        let (mut rows, mut out) = (Vec::new(), stdout());
        for entry in registry.methods() {
            let config = registry.configure(entry.name, Map::new())?;
            if self.json {
                rows.push(json!({
                    "name": entry.name,
                    "peft_type": entry.peft_type,
                    "about": entry.about,
                    "card": entry.card,
                    "learning_rate": config.learning_rate(),
                    "settings": Value::Object(config.to_fields()),
                }));
                continue;
            }
            let functions = entry.card.functions.iter().map(|function| match function {
                ComputationFunction::Parameter => "parameter",
                ComputationFunction::Input => "input",
                ComputationFunction::Function => "function",
            });
            writeln!(out, "{} ({}): {}", entry.name, entry.peft_type, entry.about)?;
            let composition = functions.collect::<Vec<_>>().join(" + ");
            let lr = format!("{:e}", config.learning_rate());
            let lines = [
                ("composition", composition.as_str()),
                ("sites", entry.card.sites),
                ("trainable", entry.card.trainable),
                ("merges", entry.card.merges),
                ("files", entry.card.formats),
                ("learning rate", &lr),
            ];
            for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
                writeln!(out, "    {name:14} {value}")?;
            }
        }
        if self.json {
            print_json(&json!({"methods": rows}))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
