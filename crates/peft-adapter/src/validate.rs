//! Values of the configuration that make no sense.

use peft_core::{Error, Result};

use crate::{BottleneckConfig, InitWeights, ReductionFactor, ResidualBeforeNorm, Scaling};

pub(crate) fn validate(config: &BottleneckConfig) -> Result<()> {
    check_places(config)?;
    check_bottleneck(config)?;
    check_wiring(config)?;
    check_experts(config)?;
    check_phm(config)
}

fn positive(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::config(field, value, "must be a positive number"))
}

fn check_places(config: &BottleneckConfig) -> Result<()> {
    if !config.mh_adapter && !config.output_adapter && config.inv_adapter.is_none() {
        let expected = "nothing would be adapted: set this, mh_adapter or inv_adapter";
        return Err(Error::config("output_adapter", false, expected));
    }
    match config.inv_adapter_reduction_factor {
        Some(factor) => positive("inv_adapter_reduction_factor", factor),
        None => Ok(()),
    }
}

fn check_bottleneck(config: &BottleneckConfig) -> Result<()> {
    if config.bottleneck_size == Some(0) {
        return Err(Error::config("bottleneck_size", 0, "must be at least 1"));
    }
    match &config.reduction_factor {
        ReductionFactor::Same(factor) => positive("reduction_factor", *factor),
        ReductionFactor::PerLayer(map) => map.iter().try_for_each(|(layer, factor)| {
            let field = format!("reduction_factor[{layer:?}]");
            if layer != "default" && layer.parse::<usize>().is_err() {
                return Err(Error::config(field, factor, "keys are layers or \"default\""));
            }
            positive(&field, *factor)
        }),
    }
}

fn check_wiring(config: &BottleneckConfig) -> Result<()> {
    let adds_to_states = config.original_ln_before
        && config.residual_before_ln == ResidualBeforeNorm::Input
        && !config.is_parallel;
    if !config.original_ln_after && !adds_to_states {
        let expected = "needs original_ln_before = true, residual_before_ln = false and is_parallel = \
                        false: else the sublayer's residual would be lost";
        return Err(Error::config("original_ln_after", false, expected));
    }
    if !(0.0..1.0).contains(&config.stochastic_depth) {
        let expected = "must be at least 0, below 1";
        return Err(Error::config("stochastic_depth", config.stochastic_depth, expected));
    }
    if config.residual_before_ln == ResidualBeforeNorm::PostAdd && !config.original_ln_before {
        let expected = "needs original_ln_before, which adds the residual";
        return Err(Error::config("residual_before_ln", "\"post_add\"", expected));
    }
    if let Scaling::Fixed(scale) = config.scaling
        && !(scale.is_finite() && scale != 0.0)
    {
        return Err(Error::config("scaling", scale, "must be a number other than 0"));
    }
    if !(0.0..1.0).contains(&config.dropout) {
        return Err(Error::config("dropout", config.dropout, "must be at least 0, below 1"));
    }
    Ok(())
}

fn check_experts(config: &BottleneckConfig) -> Result<()> {
    let BottleneckConfig { num_experts, consistency_weight, .. } = *config;
    let refuse = |expected: &str| Err(Error::config("num_experts", num_experts, expected));
    if !(consistency_weight.is_finite() && consistency_weight >= 0.0) {
        let expected = "must be a number, at least 0";
        return Err(Error::config("consistency_weight", consistency_weight, expected));
    }
    match num_experts {
        0 => refuse("must be at least 1"),
        1 => Ok(()),
        _ if config.phm_layer => refuse("is for dense projections; set phm_layer to false"),
        _ if config.share_down && config.share_up => {
            refuse("nothing differs between experts that share both; set share_down to false")
        }
        _ => Ok(()),
    }
}

fn check_phm(config: &BottleneckConfig) -> Result<()> {
    if !config.phm_layer {
        return Ok(());
    }
    for (field, value) in [("phm_dim", config.phm_dim), ("phm_rank", config.phm_rank)] {
        if value == 0 {
            return Err(Error::config(field, value, "must be at least 1"));
        }
    }
    positive("phm_init_range", config.phm_init_range)?;
    if config.init_weights != InitWeights::Bert {
        let name = serde_json::to_string(&config.init_weights).unwrap_or_default();
        let expected = "phm_layer has a start of its own; leave this at \"bert\"";
        return Err(Error::config("init_weights", name, expected));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use peft_core::MethodConfig;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn refused(fields: Value, message: &str) {
        let config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
        assert_eq!(config.validate().expect_err("it makes no sense").to_string(), message);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        refused(
            json!({ "original_ln_after": false }),
            "original_ln_after = false: needs original_ln_before = true, residual_before_ln = false and \
             is_parallel = false: else the sublayer's residual would be lost",
        );
        refused(
            json!({ "output_adapter": false }),
            "output_adapter = false: nothing would be adapted: set this, mh_adapter or inv_adapter",
        );
        refused(
            json!({ "reduction_factor": { "1": 0, "default": 2 } }),
            "reduction_factor[\"1\"] = 0: must be a positive number",
        );
        refused(
            json!({ "residual_before_ln": "post_add", "original_ln_before": false }),
            "residual_before_ln = \"post_add\": needs original_ln_before, which adds the residual",
        );
        refused(
            json!({ "phm_layer": true, "init_weights": "mam_adapter" }),
            "init_weights = \"mam_adapter\": phm_layer has a start of its own; leave this at \
             \"bert\"",
        );
        refused(json!({ "dropout": 1 }), "dropout = 1: must be at least 0, below 1");
        refused(json!({ "bottleneck_size": 0 }), "bottleneck_size = 0: must be at least 1");
        refused(json!({ "num_experts": 0 }), "num_experts = 0: must be at least 1");
        refused(
            json!({ "num_experts": 2, "phm_layer": true }),
            "num_experts = 2: is for dense projections; set phm_layer to false",
        );
        refused(
            json!({ "num_experts": 3, "share_down": true }),
            "num_experts = 3: nothing differs between experts that share both; set share_down to false",
        );
        refused(
            json!({ "consistency_weight": -1 }),
            "consistency_weight = -1: must be a number, at least 0",
        );
    }

    #[test]
    fn every_preset_is_valid() {
        for (name, _, fields) in crate::presets() {
            let config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
