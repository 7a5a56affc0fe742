//! The configuration as adapter-hub/adapters writes it.

use peft_core::{AdaptersModel, Base, Error, MethodConfig, Result};
use serde_json::{Map, Value, json};

use crate::config::DEFAULT_INVERTIBLE_REDUCTION;
use crate::{BottleneckConfig, InvertibleKind};

const LIBRARY: &str = "adapter-hub/adapters";

/// What `config` says in that library's terms.
pub(crate) fn write(config: &BottleneckConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Err(Error::no_format(BottleneckConfig::NAME, LIBRARY, reason));
    if config.train_norms {
        return refuse("it saves no norms beside adapters");
    }
    if config.ln_before {
        return refuse("with ln_before it names one tensor twice");
    }
    if config.inv_adapter == Some(InvertibleKind::Glow) {
        return refuse("its GLOW coupling computes another function");
    }
    if config.phm_layer && config.shared_w_phm && !config.factorized_phm_w {
        return refuse("it cannot create shared weights that are not factored");
    }
    let fields = serde_json::to_value(config);
    let Ok(Value::Object(mut fields)) = fields else { return refuse("it has no fields") };
    for ours in OURS {
        fields.remove(ours);
    }
    if let Some(size) = fields.remove("bottleneck_size").as_ref().and_then(Value::as_u64) {
        let site = config.adapted_sites(base)?.first().map(|site| site.d_out());
        if let Some(d) = site {
            fields.insert("reduction_factor".into(), factor(d as u64, size));
        }
    }
    if config.inv_adapter.is_some() && config.inv_adapter_reduction_factor.is_none() {
        let factor = json!(DEFAULT_INVERTIBLE_REDUCTION);
        fields.insert("inv_adapter_reduction_factor".into(), factor);
    }
    // For whoever writes the file: the model's class says it there.
    fields.remove(INVERSE);
    if config.inv_adapter.is_some() {
        fields.insert(INVERSE.into(), config.inverse.into());
    }
    for (field, value) in NOT_HERE {
        fields.insert(field.into(), serde_json::from_str(value).unwrap_or_default());
    }
    Ok(Value::Object(fields))
}

/// The reduction factor of which that library, which rounds `d / factor` down, makes `size`.
fn factor(d: u64, size: u64) -> Value {
    match d.is_multiple_of(size) {
        true => json!(d / size),
        false => json!(d as f64 / (size as f64 + 0.5)),
    }
}

/// Fields that this crate has beside its: of trained norms, which are refused, and of experts, which become
/// one.
const OURS: [&str; 5] =
    ["train_norms", "num_experts", "share_down", "share_up", "consistency_weight"];

/// Fields that this crate does not have, with the values at which they do nothing.
const NOT_HERE: [(&str, &str); 3] =
    [("cross_adapter", "false"), ("use_gating", "false"), ("init_weights_seed", "null")];

/// What that library's `config` says in ours; `None` where it is not of bottleneck adapters.
pub(crate) fn read(config: &Map<String, Value>) -> Option<Result<BottleneckConfig>> {
    let architecture = config.get("architecture").is_some_and(|value| !value.is_null());
    let ours = config.contains_key("mh_adapter") || config.contains_key("output_adapter");
    if architecture || config.contains_key("configs") || !ours {
        return None;
    }
    Some(read_fields(config.clone()))
}

fn read_fields(mut fields: Map<String, Value>) -> Result<BottleneckConfig> {
    let unsupported = |field: &str, value: &Value| {
        let (field, value, origin) = (field.into(), value.to_string(), LIBRARY.into());
        Err(Error::Unsupported { field, value, origin })
    };
    let model: AdaptersModel = serde_json::from_value(Value::Object(fields.clone()))
        .map_err(|error| Error::config("config", "BnConfig", error.to_string()))?;
    for field in ["model_class", "model_type"] {
        fields.remove(field);
    }
    // Version 1 of that library nests the invertible adapter.
    if let Some(Value::Object(nested)) = fields.remove("invertible_adapter") {
        let names = [("block_type", "inv_adapter"), ("reduction_factor", INVERTIBLE_REDUCTION)];
        for (old, new) in names {
            fields.insert(new.into(), nested.get(old).cloned().unwrap_or_default());
        }
    }
    if fields.get("ln_before") == Some(&Value::Bool(true)) {
        return unsupported("ln_before", &Value::Bool(true));
    }
    // A seed is for the start only.
    fields.remove("init_weights_seed");
    // There it is false unless given.
    fields.entry("original_ln_before").or_insert(Value::Bool(false));
    fields.retain(|_, value| !value.is_null());

    let Ok(Value::Object(known)) = serde_json::to_value(BottleneckConfig::default()) else {
        return unsupported("config", &Value::Null);
    };
    let (own, rest): (Map<_, _>, Map<_, _>) =
        fields.into_iter().partition(|(field, _)| known.contains_key(field));
    for (field, value) in &rest {
        let nothing = match value {
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            _ => false,
        };
        if !nothing {
            return unsupported(field, value);
        }
    }
    for (field, value) in &own {
        // One at a time, so that the error names it.
        serde_json::from_value::<BottleneckConfig>(json!({ field: value }))
            .map_err(|error| Error::config(field, value, error.to_string()))?;
    }
    let config: BottleneckConfig = serde_json::from_value(Value::Object(own))
        .map_err(|error| Error::config("config", "BnConfig", error.to_string()))?;
    let config = BottleneckConfig { inverse: model.inverts(), ..config };
    config.validate()?;
    Ok(config)
}

const INVERSE: &str = "inv_adapter_inverse";
const INVERTIBLE_REDUCTION: &str = "inv_adapter_reduction_factor";

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            _ => panic!("an object"),
        }
    }

    #[test]
    fn other_architectures_are_left_to_others() {
        for other in [
            json!({ "architecture": "lora", "output_adapter": true }),
            json!({ "architecture": "union", "configs": [] }),
            json!({ "architecture": null, "prefix_length": 30 }),
        ] {
            assert!(read(&fields(other)).is_none());
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let with = |field: &str, value: Value| {
            let mut config = fields(json!({ "mh_adapter": false, "output_adapter": true }));
            config.insert(field.into(), value);
            read(&config).expect("bottleneck adapters").map(|_| ()).map_err(|e| e.to_string())
        };
        for field in ["use_gating", "cross_adapter", "ln_before"] {
            let expected = format!("{field} = true in {LIBRARY} is not supported");
            assert_eq!(with(field, json!(true)), Err(expected));
            assert_eq!(with(field, json!(false)), Ok(()));
        }
        assert_eq!(with("stochastic_depth", json!(0.1)), Ok(()));
        assert!(with("stochastic_depth", json!(1.0)).is_err());
        assert_eq!(with("init_weights_seed", Value::Null), Ok(()));
        assert!(with("original_ln_after", json!(false)).is_err());
        assert!(with("scaling", json!("other")).is_err_and(|e| e.starts_with("scaling = ")));
    }

    #[test]
    fn an_older_invertible_adapter_is_read() {
        let nested =
            json!({ "block_type": "nice", "non_linearity": "relu", "reduction_factor": 3 });
        let config = json!({
            "mh_adapter": false,
            "output_adapter": true,
            "non_linearity": "ReLU",
            "invertible_adapter": nested,
        });
        let config = read(&fields(config)).expect("bottleneck adapters").expect("it is supported");
        assert_eq!(config.inv_adapter, Some(InvertibleKind::Nice));
        assert_eq!(config.inv_adapter_reduction_factor, Some(3.0));
        assert!(!config.original_ln_before);
    }

    #[test]
    fn the_factor_gives_the_width_back() {
        for d in [24u64, 128, 768] {
            for size in 1..=2 * d {
                let factor = factor(d, size).as_f64().expect("a number");
                assert_eq!((d as f64 / factor).floor() as u64, size, "{d} {size}");
            }
        }
    }
}
