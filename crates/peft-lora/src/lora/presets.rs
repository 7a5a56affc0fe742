//! The names under which variants are known.

use serde_json::{Value, json};

/// Names of variants: each with what it is, and the fields that differ from LoRA's defaults.
pub fn presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (
            "rslora",
            "LoRA scaled by alpha / sqrt(r) (Kalajdzievski 2023)",
            json!({"use_rslora": true}),
        ),
        (
            "dora",
            "LoRA with magnitude and direction apart (Liu et al. 2024)",
            json!({"use_dora": true}),
        ),
        (
            "pissa",
            "LoRA started from the principal singular vectors (Meng et al. 2024)",
            json!({"init_lora_weights": "pissa"}),
        ),
        (
            "lora+",
            "LoRA whose B learns 16 times as fast as its A (Hayou et al. 2024)",
            json!({"loraplus_lr_ratio": 16.0}),
        ),
        (
            "lora-fa",
            "LoRA whose A stays as it starts (Zhang et al. 2023)",
            json!({"lora_fa": true}),
        ),
    ]
}
