//! Methods by name, and their fields as a command line sets them.

use peft_core::{ComputationFunction, InitContext, MethodCard, MethodConfig, Result};
use peft_format::{Error, Registry};
use peft_lora::{Lora, LoraConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<LoraConfig>().preset::<LoraConfig>(
        "dora",
        "LoRA with magnitudes",
        json!({"use_dora": true}),
    );
    registry
}

fn fields(fields: Value) -> Map<String, Value> {
    fields.as_object().expect("an object").clone()
}

fn configured(name: &str, set: Value) -> Map<String, Value> {
    let config = registry().configure(name, fields(set)).expect("it makes sense");
    config.to_fields()
}

#[test]
fn fields_are_set_by_their_names_and_aliases() {
    let found = configured("lora", json!({"rank": 4, "alpha": 6.5, "use_rslora": true}));
    assert_eq!((&found["r"], &found["lora_alpha"]), (&json!(4), &json!(6.5)));
    assert_eq!((&found["use_rslora"], &found["use_dora"]), (&json!(true), &json!(false)));
    assert_eq!(configured("lora", json!({"r": 4}))["r"], json!(4));
    let found = configured("lora", json!({"target_modules": ["key"], "layers_to_transform": [1]}));
    assert_eq!(found["target_modules"], json!(["key"]));
    // A field that is not written while it has no value can still be given one.
    assert_eq!(configured("lora", json!({"lr_ratio": 16}))["loraplus_lr_ratio"], json!(16.0));
}

#[test]
fn presets_give_way_to_what_is_given() {
    assert_eq!(configured("dora", json!({}))["use_dora"], json!(true));
    assert_eq!(configured("dora", json!({"r": 2}))["use_dora"], json!(true));
    assert_eq!(configured("dora", json!({"use_dora": false}))["use_dora"], json!(false));
    // A file's tag knows no presets.
    let config = registry().configure_type("LORA", Map::new()).expect("it is registered");
    assert_eq!(config.to_fields()["use_dora"], json!(false));
}

#[test]
fn an_unknown_field_lists_the_known_ones() {
    match registry().configure("lora", fields(json!({"ranck": 4}))) {
        Err(Error::Core(peft_core::Error::UnknownField { method, field, known })) => {
            assert_eq!((method.as_str(), field.as_str()), ("lora", "ranck"));
            for expected in ["rank (r)", "alpha (lora_alpha)", "target_modules", "use_dora"] {
                assert!(known.split(", ").any(|k| k == expected), "{expected} is not in {known}");
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_value_names_its_field() {
    let cases = [
        (json!({"rank": "four"}), "r", "\"four\""),
        (json!({"rank": 4.5}), "r", "4.5"),
        (json!({"rank": -1}), "r", "-1"),
        (json!({"use_dora": 1}), "use_dora", "1"),
        (json!({"target_modules": 3}), "target_modules", "3"),
        (json!({"bias": "some"}), "bias", "\"some\""),
        (json!({"rank": 0}), "r", "0"),
        (json!({"alpha": 0.0}), "lora_alpha", "0"),
    ];
    for (set, expected_field, expected_value) in cases {
        match registry().configure("lora", fields(set.clone())) {
            Err(Error::Core(peft_core::Error::Config { field, value, .. })) => {
                assert_eq!((field.as_str(), value.as_str()), (expected_field, expected_value));
            }
            other => panic!("{set}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_method_lists_the_known_ones() {
    match registry().configure("lorra", Map::new()) {
        Err(Error::UnknownMethod { name, known }) => {
            assert_eq!((name.as_str(), known.as_str()), ("lorra", "dora (LORA), lora (LORA)"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[should_panic(expected = "the preset wrong is wrong")]
fn a_preset_of_unknown_fields_is_refused_at_once() {
    Registry::new().preset::<LoraConfig>("wrong", "no such field", json!({"use_nothing": true}));
}

/// LoRA's configuration under another name.
macro_rules! config {
    ($config:ident, $name:literal, $tag:literal) => {
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        struct $config {}
        impl MethodConfig for $config {
            const NAME: &'static str = $name;
            const PEFT_TYPE: &'static str = $tag;
            const ABOUT: &'static str = "another";
            const LEARNING_RATE: f64 = 1e-3;
            const CARD: MethodCard = MethodCard {
                functions: &[ComputationFunction::Parameter],
                sites: "",
                trainable: "",
                merges: "",
                formats: "",
            };
            type Method = Lora;
            fn validate(&self) -> Result<()> {
                Ok(())
            }
            fn init(&self, context: &InitContext<'_>) -> Result<Lora> {
                LoraConfig::default().init(context)
            }
        }
    };
}

config!(OtherName, "other", "LORA");
config!(OtherTag, "lora", "OTHER");

#[test]
#[should_panic(expected = "there is a method lora already")]
fn a_name_is_registered_once() {
    registry().register::<OtherTag>();
}

#[test]
#[should_panic(expected = "there is a method dora already")]
fn a_preset_takes_no_other_s_name() {
    registry().preset::<LoraConfig>("dora", "another", json!({}));
}

#[test]
#[should_panic(expected = "other and dora have the same tag, LORA")]
fn a_tag_is_of_one_configuration() {
    registry().register::<OtherName>();
}

#[test]
fn entries_say_what_they_are() {
    let registry = registry();
    let names: Vec<_> = registry.methods().map(|m| (m.name, m.peft_type)).collect();
    assert_eq!(names, [("dora", "LORA"), ("lora", "LORA")]);
    let config = registry.configure("lora", Map::new()).expect("it is registered");
    assert_eq!((config.name(), config.peft_type()), ("lora", "LORA"));
    assert!(config.learning_rate() > 0.0);
}
