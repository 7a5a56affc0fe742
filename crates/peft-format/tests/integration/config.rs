//! `adapter_config.json`.

use std::path::PathBuf;

use peft_core::{Base, Role};
use peft_format::{Adapter, AdapterConfig, Error, Registry, Result, TaskType};
use peft_lora::LoraConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{HIDDEN, bert, device, linears, names, random, random_lora};

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<LoraConfig>();
    registry
}

fn load_text(text: &str) -> Result<AdapterConfig> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("adapter_config.json");
    std::fs::write(&path, text).expect("it is written");
    AdapterConfig::load(&path, &registry())
}

/// A minimal configuration with more fields.
fn load_with(more: Value) -> Result<AdapterConfig> {
    let mut fields = json!({"peft_type": "LORA", "target_modules": ["query"]});
    let (Some(all), Some(more)) = (fields.as_object_mut(), more.as_object()) else {
        panic!("objects")
    };
    all.extend(more.clone());
    load_text(&fields.to_string())
}

#[test]
fn the_minimum_loads_with_defaults() {
    let config = load_text(r#"{"peft_type": "LORA"}"#).expect("it is enough");
    assert_eq!((config.task_type, config.modules_to_save.len()), (None, 0));
    let fields = config.method.to_fields();
    assert_eq!((&fields["r"], &fields["lora_alpha"]), (&json!(8), &json!(8)));
}

/// As HF PEFT 0.21 writes it.
#[test]
fn a_whole_file_of_the_reference_loads() {
    let config = load_text(
        r#"{
            "alora_invocation_tokens": null, "alpha_pattern": {"query": 4}, "arrow_config": null,
            "auto_mapping": null, "base_model_name_or_path": "bert-base-uncased", "bias": "none",
            "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
            "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
            "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
            "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 32, "lora_bias": false,
            "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": ["classifier", "score"], "peft_type": "LORA",
            "peft_version": "0.21.2", "qalora_group_size": 16, "r": 16, "rank_pattern": {},
            "revision": "main", "target_modules": ["value", "query"], "target_parameters": null,
            "task_type": "SEQ_CLS", "trainable_token_indices": null, "use_bdlora": null,
            "use_dora": false, "use_qalora": false, "use_rslora": true
        }"#,
    )
    .expect("it asks for nothing special");
    assert_eq!(config.task_type, Some(TaskType::SequenceClassification));
    assert_eq!(config.base_model_name_or_path.as_deref(), Some("bert-base-uncased"));
    assert_eq!(config.revision.as_deref(), Some("main"));
    assert_eq!(config.modules_to_save, ["classifier", "score"]);
    let fields = config.method.to_fields();
    let of = |field: &str| fields[field].clone();
    assert_eq!(
        (of("r"), of("lora_alpha"), of("lora_dropout")),
        (json!(16), json!(32), json!(0.05))
    );
    assert_eq!((of("use_rslora"), of("alpha_pattern")), (json!(true), json!({"query": 4.0})));
}

#[test]
fn switches_are_what_python_takes_for_true_and_false() {
    let switches = ["use_dora", "use_rslora", "fan_in_fan_out", "lora_bias", "ensure_weight_tying"];
    for field in switches {
        for (value, on) in
            [(json!(null), false), (json!(0), false), (json!(1), true), (json!(1.0), true)]
        {
            let config = load_with(json!({ field: value })).expect(field);
            let found = match field {
                "ensure_weight_tying" => config.ensure_weight_tying,
                _ => config.method.to_fields()[field] == json!(true),
            };
            assert_eq!(found, on, "{field} = {value}");
        }
        for value in [json!(2), json!("true"), json!([])] {
            load_with(json!({ field: value })).expect_err(field);
        }
    }
    let config = load_with(json!({"init_lora_weights": null})).expect("as false");
    assert_eq!(config.method.to_fields()["init_lora_weights"], json!(false));
    for value in [json!(true), json!(false), json!(null), json!(0), json!(1)] {
        load_with(json!({"inference_mode": value})).expect("it changes nothing");
    }
}

#[test]
fn unknown_fields_pass_while_they_ask_for_nothing() {
    for value in [json!(null), json!(false), json!([]), json!({})] {
        load_with(json!({"from_the_future": value})).expect("it asks for nothing");
    }
    // The last three say how the method began, which its tensors tell.
    let inert = [
        json!({"qalora_group_size": 32}),
        json!({"peft_version": "9.9"}),
        json!({"runtime_config": {"ephemeral_gpu_offload": true}}),
        json!({"eva_config": {"rho": 2.0}}),
        json!({"loftq_config": {"loftq_bits": 4}}),
    ];
    for inert in inert {
        load_with(inert).expect("it asks for nothing");
    }
}

#[test]
fn unknown_fields_that_ask_for_something_are_named() {
    let cases = [
        json!({"from_the_future": 3}),
        json!({"from_the_future": ""}),
        json!({"layer_replication": [[0, 2]]}),
        json!({"use_qalora": true}),
        json!({"megatron_core": "another.core"}),
    ];
    for case in cases {
        let (expected, asked) = case.as_object().and_then(|c| c.iter().next()).expect("a field");
        match load_with(case.clone()) {
            Err(Error::Core(peft_core::Error::Unsupported { field, value, origin })) => {
                assert_eq!((&field, value), (expected, asked.to_string()));
                assert!(origin.ends_with("adapter_config.json"), "{origin}");
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn rows_of_embeddings_are_read_and_written() {
    for tokens in [json!([1, 2]), json!({"embed_tokens": [3]})] {
        let config = load_with(json!({"trainable_token_indices": tokens})).expect("it is known");
        assert_eq!(config.to_fields()["trainable_token_indices"], tokens);
    }
    let without = load_with(json!({"trainable_token_indices": null})).expect("it asks for nothing");
    assert!(!without.to_fields().contains_key("trainable_token_indices"));
}

#[test]
fn broken_files_are_errors_that_name_the_file() {
    let reason = |text: &str| match load_text(text) {
        Err(Error::File { path, reason }) => {
            assert!(path.ends_with("adapter_config.json"), "{path:?}");
            reason
        }
        other => panic!("{text}: {other:?}"),
    };
    assert!(reason("").starts_with("not JSON"));
    assert!(reason(r#"{"peft_type": "LORA""#).starts_with("not JSON"));
    assert!(reason(r#"["LORA"]"#).contains("object"));
    assert!(reason(r#"{"r": 8}"#).starts_with("no peft_type"));
    assert!(reason(r#"{"peft_type": 3}"#).starts_with("no peft_type"));
    let absent = AdapterConfig::load(&PathBuf::from("no/such/file.json"), &registry());
    assert!(matches!(absent, Err(Error::File { .. })), "{absent:?}");
}

#[test]
fn an_unknown_type_lists_the_known_ones() {
    match load_text(r#"{"peft_type": "VERA"}"#) {
        Err(Error::UnknownMethod { name, known }) => {
            assert_eq!((name.as_str(), known.as_str()), ("VERA", "lora (LORA)"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_that_make_no_sense_name_their_field() {
    let cases = [
        (json!({"r": "eight"}), "r"),
        (json!({"r": 0}), "r"),
        (json!({"lora_dropout": 1.0}), "lora_dropout"),
        (json!({"rank_pattern": {"query": 0}}), "rank_pattern[\"query\"]"),
        (json!({"init_lora_weights": "mica"}), "init_lora_weights"),
        (json!({"init_lora_weights": "orthogonal", "r": 3}), "r"),
        (json!({"task_type": "SEQ_CLASSIFICATION"}), "task_type"),
        (json!({"modules_to_save": "classifier"}), "modules_to_save"),
    ];
    for (case, expected) in cases {
        match load_with(case.clone()) {
            Err(Error::Core(peft_core::Error::Config { field, .. })) => assert_eq!(field, expected),
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn a_saved_configuration_loads_as_it_was() {
    let lora = LoraConfig { use_rslora: true, ..random_lora(3, 7.0, names(&["query", "value"])) };
    let task = TaskType::SequenceClassification;
    let mut config = AdapterConfig::new(Box::new(lora)).with_task(task, &bert());
    config.base_model_name_or_path = Some("some/model".into());
    let directory: TempDir = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("adapter_config.json");
    config.save(&path).expect("it is saved");
    let loaded = AdapterConfig::load(&path, &registry()).expect("it is loaded");
    assert_eq!(loaded.to_fields(), config.to_fields());
    assert_eq!(loaded.modules_to_save, ["classifier", "score"]);

    // As the reference writes it: sorted, two spaces, whole numbers whole.
    let text = std::fs::read_to_string(&path).expect("text");
    let keys: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  \"")).collect();
    assert!(keys.is_sorted() && keys.len() > 10, "{text}");
    assert!(
        text.contains("\n  \"lora_alpha\": 7,") && text.contains("\n  \"inference_mode\": true")
    );
}

/// A base with a layer `query` and heads at these paths.
fn with_heads(heads: &[&str]) -> Base {
    let mut base = linears(&["query"]);
    for head in heads {
        base.linear(*head, Role::Head, None, random([HIDDEN, 3]), None);
    }
    base
}

#[test]
fn a_classifier_s_head_is_saved_whatever_it_is_called() {
    let usual = ["classifier", "score"];
    for (heads, expected) in [
        // A bare model, whose head is yet to come.
        (&[][..], &usual[..]),
        (&["classifier"], &usual),
        (&["score"], &usual),
        (&["classifier.dense", "classifier.out_proj"], &usual),
        (&["pre_classifier", "classifier"], &usual),
        (&["classification_head.dense", "classification_head.out_proj"], &["classification_head"]),
        (&["first.a", "second", "first.b"], &["first", "second"]),
    ] {
        let base = with_heads(heads);
        let lora = || Box::new(random_lora(2, 3.0, names(&["query"])));
        for task in [TaskType::SequenceClassification, TaskType::TokenClassification] {
            let config = AdapterConfig::new(lora()).with_task(task, &base);
            assert_eq!(config.modules_to_save, expected, "{heads:?}");
            let adapter = Adapter::new(config, &base, &device()).expect("it fits");
            let keys: Vec<String> = adapter.specs(&base).into_iter().map(|spec| spec.key).collect();
            for head in heads {
                let key = format!("base_model.model.{head}.weight");
                assert!(keys.contains(&key), "{heads:?}: {key} is not saved");
            }
        }
        let config = AdapterConfig::new(lora()).with_task(TaskType::CausalLm, &base);
        assert!(config.modules_to_save.is_empty(), "{heads:?}");
    }
}
