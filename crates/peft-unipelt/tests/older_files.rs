//! Configurations of adapter-hub/adapters in files that lack fields, as those of its older versions do.

use burn::tensor::Device;
use peft_conformance::Host;
use peft_core::{Base, MethodConfig};
use peft_ia3::Ia3Config;
use peft_lora::LoraConfig;
use peft_prefix::{PrefixTuningConfig, PromptTuningConfig};
use serde_json::{Map, Value, json};

/// Whatever field a file lacks, it is read as with the library's default for it, `whole` but for those
/// that say which method it is.
#[track_caller]
fn lacks_any<C: MethodConfig>(whole: Value, base: &Base) {
    let Value::Object(whole) = whole else { unreachable!("an object") };
    let read = |fields: &Map<String, Value>, what: &str| {
        let config = C::from_adapters(fields, base).unwrap_or_else(|| panic!("{what}: another"));
        let config = config.unwrap_or_else(|error| panic!("{what}: {error}"));
        serde_json::to_value(config).expect("it can be written")
    };
    let expected = read(&whole, "whole");
    let mut least = whole.clone();
    for field in
        whole.keys().filter(|field| !["architecture", "composition_mode"].contains(&&***field))
    {
        let mut lacking = whole.clone();
        lacking.remove(field);
        least.remove(field);
        assert_eq!(read(&lacking, field), expected, "without {field}");
    }
    assert_eq!(read(&least, "least"), expected);
}

#[test]
fn a_field_that_a_file_lacks_has_the_librarys_default() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    lacks_any::<LoraConfig>(
        json!({
            "architecture": "lora", "composition_mode": "add", "selfattn_lora": true,
            "intermediate_lora": false, "output_lora": false, "leave_out": [], "r": 8, "alpha": 8,
            "dropout": 0.0, "attn_matrices": ["q", "v"], "init_weights": "lora",
            "init_weights_seed": null, "use_gating": false, "vera_d": null, "vera_b": null,
            "dtype": null, "use_dora": false,
        }),
        base,
    );
    lacks_any::<Ia3Config>(
        json!({
            "architecture": "lora", "composition_mode": "scale", "selfattn_lora": true,
            "intermediate_lora": true, "output_lora": false, "leave_out": [], "r": 1, "alpha": 1,
            "dropout": 0.0, "attn_matrices": ["k", "v"], "init_weights": "ia3",
            "use_gating": false, "dtype": null,
        }),
        base,
    );
    lacks_any::<PrefixTuningConfig>(
        json!({
            "architecture": "prefix_tuning", "encoder_prefix": true, "cross_prefix": true,
            "leave_out": [], "flat": false, "prefix_length": 30, "bottleneck_size": 512,
            "non_linearity": "tanh", "dropout": 0.0, "use_gating": false, "shared_gating": true,
        }),
        base,
    );
    lacks_any::<PromptTuningConfig>(
        json!({
            "architecture": "prompt_tuning", "prompt_length": 10,
            "prompt_init": "random_uniform", "prompt_init_text": null, "combine": "prefix",
        }),
        base,
    );
    // What says which method it is may be left out where it is LoRA's.
    let lora = json!({"architecture": "lora", "r": 3});
    let Value::Object(lora) = lora else { unreachable!("an object") };
    let config = LoraConfig::from_adapters(&lora, base).expect("it is LoRA").expect("it is right");
    assert_eq!(config.rank, 3);
}
