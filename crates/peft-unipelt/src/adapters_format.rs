//! Hybrids as adapter-hub/adapters writes them: a union of configurations.

use peft_adapter::BottleneckConfig;
use peft_core::{Base, Error, MethodConfig, Result};
use peft_ia3::Ia3Config;
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use serde_json::{Map, Value, json};

use crate::{Part, UniPeltConfig};

const LIBRARY: &str = "adapter-hub/adapters";
const GATING: &str = "use_gating";
const SHARED: &str = "shared_gating";

/// What `config` says in that library's terms.
pub(crate) fn write(config: &UniPeltConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Err(Error::no_format(UniPeltConfig::NAME, LIBRARY, reason));
    if config.lora.is_some() && config.ia3.is_some() {
        return refuse("to it LoRA and (IA)³ are one method, and a union has a method once");
    }
    let adapters: Vec<&BottleneckConfig> = config.adapter.iter().map(|part| &part.config).collect();
    let beside = |(place, one): (usize, &&BottleneckConfig)| {
        adapters[..place].iter().all(|other| {
            let differ = |of: fn(&BottleneckConfig) -> bool| of(one) != of(other);
            let apart =
                differ(|config| config.mh_adapter) && differ(|config| config.output_adapter);
            apart || !one.leave_out.is_empty() || !other.leave_out.is_empty()
        })
    };
    if !adapters.iter().enumerate().all(beside) {
        return refuse(
            "it takes two configurations of adapters if one is for the attention sublayers and the \
             other for the feed-forward ones, or one leaves a layer out",
        );
    }
    let mut parts = Vec::new();
    for (field, gated, of_part) in config.parts() {
        let mut fields = of_part.to_adapters(base)?;
        fields[GATING] = gated.into();
        if field == "prefix" {
            fields[SHARED] = config.shared_gating.into();
        }
        parts.push(fields);
    }
    match parts.len() {
        // A part with a gate is a method there too.
        1 if parts[0][GATING] == Value::Bool(true) => Ok(parts.remove(0)),
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
    let is_gated = |config: &Value| config[GATING] == Value::Bool(true);
    let mut found = UniPeltConfig::empty();
    found.use_gating = configs.iter().any(is_gated);
    for config in configs {
        // That is said of the part, and its method is read without it.
        let use_gating = (is_gated(config) != found.use_gating).then_some(false);
        let shared = !is_gated(config) || config[SHARED] != Value::Bool(false);
        let mut fields = config.as_object().cloned().unwrap_or_default();
        fields.insert(GATING.into(), false.into());
        let second = if let Some(config) = PrefixTuningConfig::from_adapters(&fields, base) {
            found.shared_gating = shared;
            found.prefix.replace(Part { config: config?, use_gating }).map(|_| "prefixes")
        } else if let Some(config) = BottleneckConfig::from_adapters(&fields, base) {
            found.adapter.push(Part { config: config?, use_gating });
            None
        } else if let Some(config) = LoraConfig::from_adapters(&fields, base) {
            found.lora.replace(Part { config: config?, use_gating }).map(|_| "LoRAs")
        } else if let Some(config) = Ia3Config::from_adapters(&fields, base) {
            found.ia3.replace(Part { config: config?, use_gating }).map(|_| "(IA)³s")
        } else {
            return unsupported(config.to_string());
        };
        if let Some(kind) = second {
            return unsupported(format!("(a union of two {kind}, which it cannot load itself)"));
        }
    }
    if found.lora.is_some() && found.ia3.is_some() {
        return unsupported("(a union of LoRA and (IA)³, which it cannot load itself)".into());
    }
    Ok(found)
}

fn unsupported<T>(value: String) -> Result<T> {
    Err(Error::Unsupported { field: "configs".into(), value, origin: LIBRARY.into() })
}
