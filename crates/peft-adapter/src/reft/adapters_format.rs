//! The configuration as adapter-hub/adapters writes it.

use peft_core::{Error, MethodConfig, Result};
use serde_json::{Map, Value, json};

use super::ReftConfig;

const LIBRARY: &str = "adapter-hub/adapters";

/// What `config` says in that library's terms.
pub(super) fn write(config: &ReftConfig) -> Result<Value> {
    let refuse = |reason: &str| Err(Error::no_format(ReftConfig::NAME, LIBRARY, reason));
    if !config.subtract_projection {
        return refuse("its files do not say that R h is left out (DiReFT): it would read NoReFT");
    }
    let Ok(Value::Object(mut fields)) = serde_json::to_value(config) else {
        return refuse("it has no fields");
    };
    fields.remove("subtract_projection");
    let others = [
        ("architecture", json!("reft")),
        ("dtype", Value::Null),
        ("init_weights_seed", Value::Null),
        ("output_reft", json!(true)),
    ];
    fields.extend(others.map(|(field, value)| (field.to_string(), value)));
    Ok(Value::Object(fields))
}

/// What that library's `config` says in ours; `None` where it is not of ReFT.
pub(super) fn read(config: &Map<String, Value>) -> Option<Result<ReftConfig>> {
    (config.get("architecture").and_then(Value::as_str) == Some("reft"))
        .then(|| read_fields(config.clone()))
}

fn read_fields(mut fields: Map<String, Value>) -> Result<ReftConfig> {
    for field in ["architecture", "model_class", "model_type"] {
        fields.remove(field);
    }
    // A seed is for the start only, and what is loaded is computed in f32.
    fields.remove("init_weights_seed");
    fields.remove("dtype");
    if let Some(value) = fields.remove("output_reft").filter(|value| *value != Value::Bool(true)) {
        let (field, value) = ("output_reft".into(), value.to_string());
        return Err(Error::Unsupported { field, value, origin: LIBRARY.into() });
    }
    let known = serde_json::to_value(ReftConfig::default()).unwrap_or_default();
    if let Some((field, value)) = fields.iter().find(|(field, _)| known.get(field).is_none()) {
        let (field, value) = (field.clone(), value.to_string());
        return Err(Error::Unsupported { field, value, origin: LIBRARY.into() });
    }
    for (field, value) in &fields {
        // One at a time, so that the error names it.
        serde_json::from_value::<ReftConfig>(json!({ field: value }))
            .map_err(|error| Error::config(field, value, error.to_string()))?;
    }
    let config: ReftConfig = serde_json::from_value(Value::Object(fields))
        .map_err(|error| Error::config("config", "ReftConfig", error.to_string()))?;
    config.validate()?;
    Ok(config)
}
