//! Configurations of absurd sizes are errors that name the field, before memory is asked for.

use std::path::Path;

use burn::tensor::Device;
use peft_adapter::BottleneckConfig;
use peft_conformance::Host;
use peft_core::AdaptersModel;
use peft_format::{ADAPTER_CONFIG, Adapter, AdapterConfig, Registry};
use peft_lora::LoraConfig;
use peft_prefix::{PTuningConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_unipelt::UniPeltConfig;
use serde_json::{Map, Value, json};

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .register::<BottleneckConfig>()
        .register::<LoraConfig>()
        .register::<PTuningConfig>()
        .register::<PrefixTuningConfig>()
        .register::<PromptTuningConfig>()
        .register::<UniPeltConfig>();
    registry
}

/// Methods with fields of a size that makes sense, others of absurd ones, and what is named.
fn absurd() -> Vec<(&'static str, Value, Value, &'static str)> {
    let phm = json!({"phm_layer": true, "reduction_factor": 2});
    let lstm = json!({"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 8});
    let mlp = json!({"prefix_projection": true});
    let nice = json!({"inv_adapter": "nice"});
    let mut cases = Vec::new();
    for size in [1_000_000_000_000_u64, u64::MAX] {
        cases.extend([
            ("lora", json!({}), json!({"r": size}), "r = "),
            ("lora", json!({}), json!({"rank_pattern": {"query": size}}), "rank_pattern = "),
            ("lora", json!({"use_dora": true}), json!({"r": size}), "r = "),
            ("pfeiffer", json!({}), json!({"bottleneck_size": size}), "bottleneck_size = "),
            ("pfeiffer", phm.clone(), json!({"phm_rank": size}), "phm_rank = "),
            ("prefix", json!({}), json!({"num_virtual_tokens": size}), "num_virtual_tokens = "),
            ("prefix", mlp.clone(), json!({"encoder_hidden_size": size}), "encoder_hidden_size = "),
            ("prompt", json!({}), json!({"num_virtual_tokens": size}), "num_virtual_tokens = "),
            ("p-tuning", json!({}), json!({"num_virtual_tokens": size}), "num_virtual_tokens = "),
            ("p-tuning", json!({}), json!({"encoder_hidden_size": size}), "encoder_hidden_size = "),
            (
                "p-tuning",
                lstm.clone(),
                json!({"encoder_num_layers": size}),
                "encoder_num_layers = ",
            ),
            ("unipelt", json!({}), json!({"lora": {"r": size}}), "lora.r = "),
            (
                "unipelt",
                json!({}),
                json!({"prefix": {"num_virtual_tokens": size}}),
                "prefix.num_virtual_tokens = ",
            ),
        ]);
    }
    for factor in [1e-12, 1e-300] {
        let layers = json!({"1": factor, "default": 2});
        cases.extend([
            ("pfeiffer", json!({}), json!({"reduction_factor": factor}), "reduction_factor = "),
            ("pfeiffer", json!({}), json!({"reduction_factor": layers}), "reduction_factor = "),
            (
                "pfeiffer",
                nice.clone(),
                json!({"inv_adapter_reduction_factor": factor}),
                "inv_adapter_reduction_factor = ",
            ),
            (
                "unipelt",
                json!({}),
                json!({"adapter": {"reduction_factor": factor}}),
                "adapter.reduction_factor = ",
            ),
        ]);
    }
    cases
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Sets fields of a JSON file, inside `part` if there is one.
fn patch(path: &Path, part: Option<&str>, fields: &Value) {
    let text = std::fs::read_to_string(path).expect("written before");
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    let whole = match part {
        Some(part) => &mut all[part],
        None => &mut all,
    };
    whole.as_object_mut().expect("an object").extend(object(fields));
    std::fs::write(path, all.to_string()).expect("written");
}

#[test]
fn a_new_adapter_of_an_absurd_size_is_refused_by_its_field() {
    let (registry, device) = (registry(), Device::default());
    let host = Host::new(&device);
    for (method, sound, absurd, start) in absurd() {
        let mut fields = object(&sound);
        let config = registry.configure(method, fields.clone()).expect("it makes sense");
        let adapter = Adapter::new(AdapterConfig::new(config), host.model.base(), &device);
        assert!(adapter.is_ok(), "{method} {sound}");
        fields.extend(object(&absurd));
        let config = registry.configure(method, fields).expect("no model is known yet");
        let adapter = Adapter::new(AdapterConfig::new(config), host.model.base(), &device);
        let error = adapter.map(|_| ()).expect_err("it is too large").to_string();
        assert!(error.starts_with(start), "{method} {absurd}: {error}");
        assert!(error.contains("make sense over this model"), "{error}");
    }
}

#[test]
fn a_file_that_asks_for_an_absurd_size_is_refused_by_its_field() {
    let (registry, device) = (registry(), Device::default());
    let host = Host::new(&device);
    let base = host.model.base();
    for (method, sound, absurd, start) in absurd() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let config = registry.configure(method, object(&sound)).expect("it makes sense");
        let mut adapter =
            Adapter::new(AdapterConfig::new(config), base, &device).expect("an adapter");
        peft_core::Method::finish(&mut adapter.method);
        adapter.save(directory, base).expect("saved");
        assert!(Adapter::load(directory, &registry, base, &device).is_ok(), "{method} {sound}");
        patch(&directory.join(ADAPTER_CONFIG), None, &absurd);
        let loaded = Adapter::load(directory, &registry, base, &device);
        let error = loaded.map(|_| ()).expect_err("it is too large").to_string();
        assert!(error.starts_with(start), "{method} {absurd}: {error}");
        assert!(Adapter::check(directory, &registry, base, &device).is_err());
    }
}

#[test]
fn so_is_a_file_of_adapters() {
    let (registry, device) = (registry(), Device::default());
    let host = Host::new(&device);
    let base = host.model.base();
    let model = AdaptersModel {
        model_class: "BertForSequenceClassification".into(),
        model_name: "host".into(),
        model_type: "bert".into(),
        hidden_size: 24,
    };
    let size = 1_000_000_000_000_u64;
    for (method, absurd, start) in [
        ("lora", json!({"r": size}), "r = "),
        ("pfeiffer", json!({"reduction_factor": 1e-300}), "reduction_factor = "),
        ("prefix", json!({"prefix_length": size}), "num_virtual_tokens = "),
        ("prompt", json!({"prompt_length": size}), "num_virtual_tokens = "),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let sound = match method {
            "prefix" => json!({"shift_positions": false}),
            "prompt" => json!({"after_embeddings": true}),
            _ => json!({}),
        };
        let config = registry.configure(method, object(&sound)).expect("it makes sense");
        let adapter = Adapter::new(AdapterConfig::new(config), base, &device).expect("an adapter");
        adapter.save_as_adapters(directory, "it", &model, base).expect("saved");
        assert!(Adapter::load(directory, &registry, base, &device).is_ok(), "{method}");
        patch(&directory.join(ADAPTER_CONFIG), Some("config"), &absurd);
        let loaded = Adapter::load(directory, &registry, base, &device);
        let error = loaded.map(|_| ()).expect_err("it is too large").to_string();
        assert!(error.starts_with(start), "{method} {absurd}: {error}");
    }
}
