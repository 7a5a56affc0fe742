//! The names under which hybrids are known.

use serde_json::{Value, json};

/// Names of hybrids: each with what it is, and the fields that differ from UniPELT's defaults.
pub fn presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![(
        "mam",
        "prefix and scaled parallel adapter (He et al. 2022)",
        json!({
            "prefix": {
                "num_virtual_tokens": 30,
                "prefix_projection": true,
                "encoder_hidden_size": 800,
                "shift_positions": false,
                "encoder_prefix": true,
                "cross_prefix": true,
            },
            "adapter": {
                "is_parallel": true,
                "original_ln_before": false,
                "reduction_factor": 2,
                "init_weights": "mam_adapter",
                "scaling": 4.0,
            },
            "lora": null,
            "use_gating": false,
        }),
    )]
}

/// Names of plans: each with what it is, and the fields that differ from a plan's defaults.
pub fn plan_presets() -> Vec<(&'static str, &'static str, Value)> {
    let prefix = json!({
        "num_virtual_tokens": 10,
        "shift_positions": false,
        "encoder_prefix": true,
        "cross_prefix": true,
    });
    vec![(
        "s4",
        "other methods in four groups of layers (Chen et al. 2023)",
        json!({
            "grouping": "spindle",
            "groups": [
                {"methods": ["adapter", "lora"]},
                {"methods": ["adapter"], "prefix": prefix},
                {"methods": ["adapter", "bitfit"], "prefix": prefix},
                {"methods": ["bitfit", "lora"], "prefix": prefix},
            ],
        }),
    )]
}
