//! Hybrids as adapter-hub/adapters writes them: a union of configurations.

use peft_adapter::BottleneckConfig;
use peft_core::{Base, Error, MethodConfig, Result};
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use serde_json::{Map, Value, json};

use crate::UniPeltConfig;

const LIBRARY: &str = "adapter-hub/adapters";
const GATING: &str = "use_gating";

/// What `config` says in that library's terms.
pub(crate) fn write(config: &UniPeltConfig, base: &Base) -> Result<Value> {
    let mut parts = Vec::new();
    if let Some(prefix) = &config.prefix {
        parts.push(prefix.to_adapters(base)?);
    }
    if let Some(adapter) = &config.adapter {
        parts.push(adapter.to_adapters(base)?);
    }
    if let Some(lora) = &config.lora {
        parts.push(lora.to_adapters(base)?);
    }
    for part in &mut parts {
        part[GATING] = Value::Bool(config.use_gating);
    }
    match parts.len() {
        // A part with a gate is a method there too.
        1 if config.use_gating => Ok(parts.remove(0)),
        _ => Ok(json!({"architecture": "union", "configs": parts})),
    }
}

/// What that library's `config` says in ours; `None` where it is neither a union nor has a gate.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<UniPeltConfig>> {
    let is_union = config.get("architecture").and_then(Value::as_str) == Some("union");
    let is_gated = config.get(GATING) == Some(&Value::Bool(true));
    match config.get("configs") {
        Some(Value::Array(configs)) if is_union => Some(read_parts(configs, base)),
        None if is_gated => Some(read_parts(&[Value::Object(config.clone())], base)),
        _ => None,
    }
}

fn read_parts(configs: &[Value], base: &Base) -> Result<UniPeltConfig> {
    let unsupported = |value: &Value| {
        let (field, value, origin) = ("configs".into(), value.to_string(), LIBRARY.into());
        Err(Error::Unsupported { field, value, origin })
    };
    let mut found = UniPeltConfig { prefix: None, adapter: None, lora: None, use_gating: false };
    let mut gates = Vec::new();
    for part in configs {
        let Value::Object(fields) = part else { return unsupported(part) };
        let mut fields = fields.clone();
        let own_gates = fields.get("shared_gating") == Some(&Value::Bool(false));
        if own_gates && fields.get(GATING) == Some(&Value::Bool(true)) {
            // A prefix has one gate here, not one for its keys and another for its values.
            let (field, value, origin) = ("shared_gating".into(), "false".into(), LIBRARY.into());
            return Err(Error::Unsupported { field, value, origin });
        }
        gates.push(fields.insert(GATING.into(), Value::Bool(false)) == Some(Value::Bool(true)));
        if found.prefix.is_none()
            && let Some(prefix) = PrefixTuningConfig::from_adapters(&fields, base)
        {
            found.prefix = Some(prefix?);
        } else if found.adapter.is_none()
            && let Some(adapter) = BottleneckConfig::from_adapters(&fields, base)
        {
            found.adapter = Some(adapter?);
        } else if found.lora.is_none()
            && let Some(lora) = LoraConfig::from_adapters(&fields, base)
        {
            found.lora = Some(lora?);
        } else {
            return unsupported(part);
        }
    }
    found.use_gating = gates.contains(&true);
    if gates.contains(&!found.use_gating) {
        return Err(Error::config(GATING, "true and false", "all parts have gates, or none has"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_prefix_with_two_gates_is_refused_by_name() {
        let base = Base::new(&Device::default());
        let gated = |shared: bool| {
            let config = json!({
                "architecture": "prefix_tuning",
                "flat": true,
                "prefix_length": 3,
                "bottleneck_size": 8,
                "non_linearity": "tanh",
                "dropout": 0.0,
                "use_gating": true,
                "shared_gating": shared,
            });
            let Value::Object(config) = config else { unreachable!("an object") };
            let read = read(&config, &base).expect("it has a gate");
            read.map(|config| config.use_gating).map_err(|error| error.to_string())
        };
        assert_eq!(gated(true), Ok(true));
        let error = gated(false).expect_err("there is one gate here");
        assert!(error.starts_with("shared_gating = false in adapter-hub"), "{error}");
    }
}
