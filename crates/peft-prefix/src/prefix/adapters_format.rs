//! The configuration of prefix tuning as adapter-hub/adapters writes it.

use peft_core::{Activation, Base, Error, Result, with_adapters_defaults};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::PrefixTuningConfig;

/// Its `PrefixTuningConfig`, as far as it means something here.
#[derive(Debug, Deserialize)]
struct AdaptersPrefix {
    #[serde(default)]
    leave_out: Vec<usize>,
    flat: bool,
    prefix_length: usize,
    bottleneck_size: usize,
    non_linearity: Activation,
    dropout: f64,
    #[serde(default = "yes")]
    encoder_prefix: bool,
    #[serde(default = "yes")]
    cross_prefix: bool,
    #[serde(default)]
    use_gating: bool,
}

fn yes() -> bool {
    true
}

/// What `config` says in that library's terms. A file is written when its MLP is gone, so the
/// prefix is flat.
pub(super) fn write(config: &PrefixTuningConfig, base: &Base) -> Result<Value> {
    if config.shift_positions {
        return Err(Error::no_format(
            "prefix",
            "adapter-hub/adapters",
            "it counts the positions of the text from 0: train with shift_positions = false",
        ));
    }
    config.sites(base)?;
    // Elsewhere they mean nothing, and have the library's default.
    let only = base.is_encoder_decoder();
    Ok(json!({
        "architecture": "prefix_tuning",
        "bottleneck_size": 512,
        "cross_prefix": !only || config.cross_prefix,
        "dropout": config.dropout,
        "encoder_prefix": !only || config.encoder_prefix,
        "flat": true,
        "init_weights_seed": null,
        "leave_out": config.leave_out,
        "non_linearity": config.non_linearity,
        "prefix_length": config.num_virtual_tokens,
        "shared_gating": true,
        "use_gating": false,
    }))
}

/// What that library's `config` says in ours; `None` where it is not of prefix tuning.
pub(super) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<PrefixTuningConfig>> {
    let architecture = config.get("architecture").and_then(Value::as_str);
    (architecture == Some("prefix_tuning")).then(|| {
        let defaults = json!({
            "flat": false, "prefix_length": 30, "bottleneck_size": 512, "non_linearity": "tanh",
            "dropout": 0.0,
        });
        let theirs: AdaptersPrefix =
            serde_json::from_value(with_adapters_defaults(config, defaults)).map_err(|error| {
                Error::config("config", "PrefixTuningConfig", error.to_string())
            })?;
        if theirs.use_gating {
            return Err(Error::config(
                "use_gating",
                true,
                "a gated prefix is part of UniPELT, and read with the whole of it",
            ));
        }
        Ok(PrefixTuningConfig {
            num_virtual_tokens: theirs.prefix_length,
            prefix_projection: !theirs.flat,
            encoder_hidden_size: (!theirs.flat).then_some(theirs.bottleneck_size),
            non_linearity: theirs.non_linearity,
            dropout: theirs.dropout,
            leave_out: theirs.leave_out,
            shift_positions: false,
            encoder_prefix: theirs.encoder_prefix && base.is_encoder_decoder(),
            cross_prefix: theirs.cross_prefix && base.is_encoder_decoder(),
            ..PrefixTuningConfig::default()
        })
    })
}
