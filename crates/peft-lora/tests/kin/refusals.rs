//! What makes no sense is refused, with what would be right.

use burn::tensor::{Device, Tensor};
use peft_core::{Base, InitContext, MethodConfig, ModuleNames, Role, Targets};
use peft_lora::{
    AdaloraConfig, DeloraConfig, GraloraConfig, HiraConfig, LohaConfig, LokrConfig, MissConfig,
    VbloraConfig, VeraConfig,
};
use serde_json::{Value, json};

/// The error of a configuration over a query projection `[6, 4]`.
fn refused<C: MethodConfig>(fields: Value) -> String {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([6, 4], &device);
    base.linear("layer.query", Role::Query, Some(0), weight, None);
    let config: C = match serde_json::from_value(fields) {
        Ok(config) => config,
        Err(error) => return error.to_string(),
    };
    config.init(&InitContext::new(&base, &device)).expect_err("it is refused").to_string()
}

#[test]
fn values_are_refused_by_field() {
    let zero = "r = 0: the rank must be at least 1";
    assert_eq!(refused::<VeraConfig>(json!({"r": 0})), zero);
    assert_eq!(refused::<LohaConfig>(json!({"r": 0})), zero);
    assert_eq!(
        refused::<HiraConfig>(json!({"rank_pattern": {"query": 0}})),
        "rank_pattern[\"query\"] = 0: the rank must be at least 1"
    );
    assert_eq!(
        refused::<LokrConfig>(json!({"alpha": 0})),
        "alpha = 0: must be a number other than 0"
    );
    assert_eq!(
        refused::<DeloraConfig>(json!({"module_dropout": 1.0})),
        "module_dropout = 1: must be at least 0, below 1"
    );
    assert_eq!(refused::<AdaloraConfig>(json!({"deltaT": 0})), "deltaT = 0: must be at least 1");
    assert_eq!(
        refused::<VbloraConfig>(json!({"topk": 9, "num_vectors": 8})),
        "topk = 9: must be from 1 to num_vectors, which is 8"
    );
    assert_eq!(
        refused::<AdaloraConfig>(json!({"total_step": 10, "tinit": 6, "tfinal": 4})),
        "total_step = 10: must be above tinit + tfinal, 10, so that there are steps in which the \
         budget falls"
    );
}

#[test]
fn what_is_for_convolutions_is_refused() {
    let expected =
        "use_effective_conv2d = true: is for convolutions, and linear layers alone are adapted";
    assert_eq!(refused::<LohaConfig>(json!({"use_effective_conv2d": true})), expected);
    assert_eq!(refused::<LokrConfig>(json!({"use_effective_conv2d": true})), expected);
}

#[test]
fn what_does_not_fit_a_layer_is_refused_with_its_name() {
    let place = "layer.query";
    let all = [
        (refused::<MissConfig>(json!({"r": 8})), "r = 8: must be at most 6"),
        (refused::<MissConfig>(json!({"r": 4, "init_weights": "bat"})), "r = 4: must divide both"),
        (
            refused::<MissConfig>(json!({"r": 2, "init_weights": "mini", "mini_r": 3})),
            "mini_r = 3: must divide 4",
        ),
        (
            refused::<GraloraConfig>(json!({"r": 4, "gralora_k": 4})),
            "gralora_k = 4: must divide both",
        ),
        (
            refused::<VbloraConfig>(json!({"vector_length": 4})),
            "vector_length = 4: must divide both",
        ),
    ];
    for (error, expected) in all {
        assert!(error.starts_with(expected) && error.contains(place), "{error}");
    }
    assert_eq!(
        refused::<GraloraConfig>(json!({"r": 4, "gralora_k": 3})),
        "gralora_k = 3: must divide r, which is 4"
    );
}

#[test]
fn unknown_starts_are_refused_with_those_there_are() {
    assert_eq!(
        refused::<LokrConfig>(json!({"init_weights": "bat"})),
        "unknown start \"bat\"; there are true, false, \"lycoris\""
    );
    assert_eq!(
        refused::<MissConfig>(json!({"init_weights": "lycoris"})),
        "unknown start \"lycoris\"; there are true, false, \"bat\", \"mini\""
    );
}

#[test]
fn a_file_of_a_method_without_excluded_modules_names_the_others() {
    let device = Device::default();
    let mut base = Base::new(&device);
    for path in ["layer.0.query", "layer.1.query"] {
        let weight = Tensor::<2>::ones([6, 4], &device);
        base.linear(path, Role::Query, Some(0), weight, None);
    }
    let fields = json!({"target_modules": ["query"], "exclude_modules": ["layer.0.query"]});
    let config: VeraConfig = serde_json::from_value(fields).expect("it can be read");
    let written = config.for_file(&base).expect("it fits").targets;
    let expected = Targets {
        target_modules: Some(ModuleNames::list(["layer.1.query"])),
        ..Targets::default()
    };
    assert_eq!(written, expected);
}
