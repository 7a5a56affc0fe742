//! Plans by layers, S4 among them, have the properties that every method must have.

use burn::tensor::Device;
use peft_conformance::{Expect, Host, HostKind, conformance};
use peft_core::{InitContext, MethodConfig, configure};
use peft_unipelt::{PlanConfig, plan_presets};
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;

fn plan(fields: Value) -> PlanConfig {
    let Value::Object(fields) = fields else { panic!("an object") };
    configure(fields).expect("a plan")
}

fn s4() -> PlanConfig {
    plan(plan_presets().remove(0).2)
}

/// Of two layers the first is of the second group, and the second of the third.
fn s4_values() -> usize {
    let bottleneck = HIDDEN / 16;
    let adapters = 2 * (HIDDEN * bottleneck + bottleneck + bottleneck * HIDDEN + HIDDEN);
    let prefix = 2 * 10 * 2 * HIDDEN;
    let biases = 4 * HIDDEN + HIDDEN + INNER + HIDDEN + HIDDEN;
    adapters + prefix + biases
}

conformance!(
    s4_in_two_layers,
    s4(),
    Expect { trainable: Some(s4_values()), identity_at_init: false, ..Expect::default() }
);

fn by_layers() -> PlanConfig {
    plan(json!({"groups": [
        {"layers": "0", "methods": ["bitfit", "lora"], "lora": {"r": 4}},
        {"layers": [1], "adapter": {"reduction_factor": 4}, "ia3": {}},
    ]}))
}

// The T5 host has a third layer, which is in no group.
conformance!(
    plan_by_layers,
    by_layers(),
    Expect { reaches_change: false, identity_at_init: false, ..Expect::default() }
);

conformance!(
    plan_of_one_method,
    PlanConfig::default(),
    Expect { trainable: Some(2 * 2 * 8 * 2 * HIDDEN), ..Expect::default() }
);

/// The keys of a plan's tensors over a host, without the head's.
fn keys(config: &PlanConfig, kind: HostKind) -> Vec<String> {
    let host = Host::of(kind, &Device::default());
    let base = host.model.base();
    let mut method = config.init(&InitContext::new(base, base.device())).expect("it fits");
    let mut file = peft_core::Exchange::describe();
    peft_core::Method::exchange(&mut method, &mut file, base);
    file.into_specs().into_iter().map(|spec| spec.key).collect()
}

#[test]
fn each_method_is_in_the_layers_of_its_groups_alone() {
    for key in keys(&by_layers(), HostKind::Bert) {
        let is_first = key.contains("layer.0.");
        let of_first = key.contains("lora_") || key.ends_with(".bias") && !key.contains("adapter");
        assert_eq!(is_first, of_first, "{key}");
        assert!(is_first || key.contains("layer.1."), "{key}");
    }
}

fn refused(fields: Value) -> String {
    let Value::Object(fields) = fields else { panic!("an object") };
    let config = match configure::<PlanConfig>(fields) {
        Ok(config) => config,
        Err(error) => return error.to_string(),
    };
    let host = Host::of(HostKind::Bert, &Device::default());
    let base = host.model.base();
    config.init(&InitContext::new(base, base.device())).expect_err("it is wrong").to_string()
}

#[test]
fn what_makes_no_plan_is_refused_by_name() {
    for (groups, named) in [
        (json!([]), "groups"),
        (json!([{}]), "groups.methods"),
        (json!([{"methods": ["boft"]}]), "boft"),
        (json!([{"lora": {"rang": 3}}]), "rang"),
        (json!([{"layers": "2-0", "methods": ["lora"]}]), "2-0"),
        (json!([{"layers": "0", "methods": ["lora"]}, {"methods": ["lora"]}]), "groups.layers"),
        (
            json!([{"layers": "0-1", "methods": ["lora"]}, {"layers": 1, "methods": ["ia3"]}]),
            "layer 1 is in an earlier group",
        ),
        (json!([{"layers": "7", "methods": ["lora"]}]), "has a layer"),
        (
            json!([
                {"layers": 0, "prefix": {"num_virtual_tokens": 2}},
                {"layers": 1, "prefix": {"num_virtual_tokens": 3}},
            ]),
            "prompt_embeddings",
        ),
    ] {
        let error = refused(json!({"groups": groups}));
        assert!(error.contains(named), "{error:?} does not name {named}");
    }
}

#[test]
fn a_group_whose_layers_are_not_there_is_reported() {
    let host = Host::of(HostKind::Bert, &Device::default());
    let config = plan(json!({"groups": [
        {"layers": "0-1", "methods": ["lora"]},
        {"layers": "5-6", "methods": ["ia3"]},
    ]}));
    let unmatched = config.unmatched(host.model.base()).expect("it fits");
    let shown: Vec<String> = unmatched.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].contains("groups.layers = 5-6"), "{shown:?}");
    // Divided, two layers are not enough for four groups.
    assert!(s4().unmatched(host.model.base()).expect("it fits").is_empty());
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    for config in [s4(), by_layers(), PlanConfig::default()] {
        let written = serde_json::to_value(&config).expect("it is written");
        assert_eq!(plan(written), config);
    }
}
