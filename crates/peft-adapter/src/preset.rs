//! Configurations that have names of their own.

use serde_json::{Value, json};

/// Names of configurations, a line about each, and the fields in which it differs from the
/// defaults.
///
/// ```
/// use peft_adapter::{BottleneckConfig, presets};
/// let presets = presets();
/// let (_, _, fields) = presets.iter().find(|(name, ..)| *name == "houlsby").unwrap();
/// let config: BottleneckConfig = serde_json::from_value(fields.clone())?;
/// assert!(config.mh_adapter && config.output_adapter);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (
            "houlsby",
            "adapters after attention and after the feed-forward network (Houlsby et al. 2019)",
            json!({ "mh_adapter": true, "original_ln_before": false, "non_linearity": "silu" }),
        ),
        (
            "parallel",
            "adapters beside the feed-forward network (He et al. 2021)",
            json!({
                "is_parallel": true,
                "original_ln_before": false,
                "init_weights": "mam_adapter",
                "reduction_factor": 2,
            }),
        ),
        (
            "scaled-parallel",
            "parallel adapters with a scale of 4 (He et al. 2021)",
            json!({
                "is_parallel": true,
                "original_ln_before": false,
                "init_weights": "mam_adapter",
                "reduction_factor": 2,
                "scaling": 4.0,
            }),
        ),
        (
            "pfeiffer-inv",
            "pfeiffer, with an invertible adapter at the embeddings (MAD-X)",
            json!({ "inv_adapter": "nice", "inv_adapter_reduction_factor": 2 }),
        ),
        (
            "adapterplus",
            "pfeiffer behind the norm, a scale for each channel (Steitz and Roth 2024)",
            json!({
                "original_ln_after": false,
                "residual_before_ln": false,
                "stochastic_depth": 0.1,
                "init_weights": "houlsby",
                "scaling": "channel",
                "reduction_factor": 96,
                "non_linearity": "gelu",
            }),
        ),
        (
            "adamix",
            "adapters with four projections down, averaged after training (Wang et al. 2022)",
            json!({
                "original_ln_before": false,
                "non_linearity": "gelu",
                "num_experts": 4,
            }),
        ),
        (
            "houlsby-inv",
            "houlsby, with an invertible adapter at the embeddings",
            json!({
                "mh_adapter": true,
                "original_ln_before": false,
                "non_linearity": "silu",
                "inv_adapter": "nice",
                "inv_adapter_reduction_factor": 2,
            }),
        ),
        (
            "phm",
            "houlsby, its weights sums of Kronecker products (Mahabadi et al. 2021)",
            json!({
                "mh_adapter": true,
                "original_ln_before": false,
                "non_linearity": "silu",
                "phm_layer": true,
                "shared_phm_rule": false,
                "factorized_phm_W": false,
            }),
        ),
        (
            "compacter",
            "phm with factored weights and a rule shared by all layers (Mahabadi et al. 2021)",
            json!({
                "mh_adapter": true,
                "original_ln_before": false,
                "non_linearity": "gelu",
                "reduction_factor": 32,
                "phm_layer": true,
            }),
        ),
        (
            "compacter++",
            "compacter after the feed-forward network only (Mahabadi et al. 2021)",
            json!({ "non_linearity": "gelu", "reduction_factor": 32, "phm_layer": true }),
        ),
    ]
}
