//! Every method of the workspace that is compiled in.

use peft_core::Registry;

/// The registry of the methods compiled in; register your own beside them.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    #[cfg(feature = "lora")]
    register_lora(&mut registry);
    registry
}

#[cfg(feature = "lora")]
fn register_lora(registry: &mut Registry) {
    use peft_lora::LoraConfig;
    use serde_json::json;

    registry
        .register::<LoraConfig>()
        .preset::<LoraConfig>(
            "rslora",
            "LoRA scaled by alpha / sqrt(r) (Kalajdzievski 2023)",
            json!({"use_rslora": true}),
        )
        .preset::<LoraConfig>(
            "dora",
            "LoRA with magnitude and direction apart (Liu et al. 2024)",
            json!({"use_dora": true}),
        )
        .preset::<LoraConfig>(
            "pissa",
            "LoRA started from the principal singular vectors (Meng et al. 2024)",
            json!({"init_lora_weights": "pissa"}),
        )
        .preset::<LoraConfig>(
            "lora+",
            "LoRA whose B learns 16 times as fast as its A (Hayou et al. 2024)",
            json!({"loraplus_lr_ratio": 16.0}),
        );
}
