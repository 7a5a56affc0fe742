//! Hybrids have the properties that every method must have.

use burn::tensor::Device;
use peft_adapter::{BottleneckConfig, ReductionFactor, ResidualBeforeNorm};
use peft_conformance::{Expect, Host, HostKind, conformance};
use peft_core::{AttentionMatrices, InitContext, MethodConfig, configure};
use peft_ia3::Ia3Config;
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use peft_unipelt::{Part, UniPeltConfig};
use serde_json::{Map, Value, json};

const HIDDEN: usize = 24;
const LAYERS: usize = 2;
const BOTTLENECK: usize = 6;
const RANK: usize = 3;
const PREFIX: usize = 4;

fn prefix() -> PrefixTuningConfig {
    PrefixTuningConfig {
        num_virtual_tokens: PREFIX,
        shift_positions: false,
        ..PrefixTuningConfig::default()
    }
}

fn adapter() -> BottleneckConfig {
    BottleneckConfig {
        reduction_factor: ReductionFactor::Same((HIDDEN / BOTTLENECK) as f64),
        ..BottleneckConfig::default()
    }
}

fn lora() -> LoraConfig {
    LoraConfig { rank: RANK, alpha: 7.0, ..LoraConfig::default() }
}

fn matrices() -> AttentionMatrices {
    serde_json::from_value(json!(["q", "v"])).expect("they can be read")
}

const INNER: usize = 40;
/// Outputs of keys and values, inputs of the second feed-forward layer.
const IA3_VALUES: usize = LAYERS * (2 * HIDDEN + INNER);
const IA3_GATES: usize = LAYERS * (2 * (HIDDEN + 1) + INNER + 1);
const PREFIX_VALUES: usize = PREFIX * 2 * LAYERS * HIDDEN;
const ADAPTER_VALUES: usize = LAYERS * (2 * HIDDEN * BOTTLENECK + BOTTLENECK + HIDDEN);
const LORA_VALUES: usize = LAYERS * 2 * RANK * 2 * HIDDEN;

fn trains(trainable: usize) -> Expect {
    Expect {
        // A prefix takes some of the attention from the start, and adapters start near the base
        // only.
        identity_at_init: false,
        trainable: Some(trainable),
        dropout: Some(&["prefix.dropout", "adapter.dropout"]),
        ..Expect::default()
    }
}

/// One gate for each of its sites at each head, feed-forward sublayer, query and value.
fn gates(per_layer: usize) -> usize {
    LAYERS * per_layer * (HIDDEN + 1)
}

/// A part without gates.
fn ungated<C>(config: C) -> Part<C> {
    Part { config, use_gating: Some(false) }
}

conformance!(
    unipelt,
    UniPeltConfig {
        prefix: Some(prefix().into()),
        adapter: vec![adapter().into()],
        lora: Some(lora().into()),
        ..UniPeltConfig::empty()
    },
    Expect {
        dropout: Some(&["prefix.dropout", "adapter.dropout", "lora.lora_dropout"]),
        ..trains(PREFIX_VALUES + ADAPTER_VALUES + LORA_VALUES + gates(4))
    }
);

conformance!(
    mam,
    UniPeltConfig {
        prefix: Some(prefix().into()),
        adapter: vec![
            BottleneckConfig { is_parallel: true, original_ln_before: false, ..adapter() }.into()
        ],
        use_gating: false,
        ..UniPeltConfig::empty()
    },
    trains(PREFIX_VALUES + ADAPTER_VALUES)
);

conformance!(
    some_parts_with_gates,
    UniPeltConfig {
        prefix: Some(prefix().into()),
        adapter: vec![ungated(adapter())],
        ia3: Some(Ia3Config::default().into()),
        shared_gating: false,
        ..UniPeltConfig::empty()
    },
    Expect {
        // (IA)³ has none.
        dropout: Some(&[]),
        ..trains(PREFIX_VALUES + ADAPTER_VALUES + IA3_VALUES + gates(2) + IA3_GATES)
    }
);

conformance!(
    two_adapters,
    UniPeltConfig {
        adapter: vec![
            adapter().into(),
            ungated(BottleneckConfig { mh_adapter: true, output_adapter: false, ..adapter() }),
        ],
        ..UniPeltConfig::empty()
    },
    Expect { dropout: None, ..trains(2 * ADAPTER_VALUES + gates(1)) }
);

conformance!(
    gated_adapters_behind_their_own_norm,
    UniPeltConfig {
        adapter: vec![
            BottleneckConfig {
                residual_before_ln: ResidualBeforeNorm::Input,
                ln_after: true,
                ..adapter()
            }
            .into()
        ],
        ..UniPeltConfig::empty()
    },
    Expect {
        dropout: Some(&["adapter.dropout"]),
        ..trains(ADAPTER_VALUES + LAYERS * 2 * HIDDEN + gates(1))
    }
);

conformance!(
    gated_ia3,
    UniPeltConfig {
        ia3: Some(Ia3Config { alpha: 1.5, ..Ia3Config::default() }.into()),
        ..UniPeltConfig::empty()
    },
    // Gates that are half open halve what is scaled.
    Expect { dropout: Some(&[]), ..trains(IA3_VALUES + IA3_GATES) }
);

conformance!(
    gated_lora,
    UniPeltConfig { lora: Some(lora().into()), ..UniPeltConfig::empty() },
    Expect {
        identity_at_init: true,
        dropout: Some(&["lora.lora_dropout"]),
        ..trains(LORA_VALUES + gates(2))
    }
);

conformance!(
    gated_parts_of_a_fused_projection,
    UniPeltConfig {
        lora: Some(LoraConfig { attn_matrices: matrices(), ..lora() }.into()),
        ia3: Some(Ia3Config { attn_matrices: matrices(), ..Ia3Config::default() }.into()),
        ..UniPeltConfig::empty()
    },
    Expect {
        // (IA)³ has none.
        dropout: Some(&[]),
        // The others have projections of their own.
        unfit: &[HostKind::Bert, HostKind::Llama, HostKind::T5],
        identity_at_init: false,
        ..Expect::default()
    }
);

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("an object") };
    fields
}

#[test]
fn a_part_says_for_itself_whether_it_has_gates() {
    let config = configure::<UniPeltConfig>(fields(json!({
        "prefix": {"use_gating": true},
        "adapter": [{"use_gating": null}, {"mh_adapter": true, "output_adapter": false}],
        "lora": {"r": 2, "use_gating": false},
        "use_gating": true,
    })));
    let config = config.expect("it makes sense");
    let gated: Vec<bool> = config.adapter.iter().map(|part| config.is_gated(part)).collect();
    assert_eq!(gated, [true, true]);
    assert!(!config.is_gated(config.lora.as_ref().expect("there is one")));
    let written = serde_json::to_value(&config).expect("it can be written");
    assert_eq!(written["lora"]["use_gating"], json!(false));
    assert_eq!(written["adapter"].as_array().map(Vec::len), Some(2));
    assert_eq!(serde_json::from_value::<UniPeltConfig>(written).ok(), Some(config));
    let default = serde_json::to_value(UniPeltConfig::default()).expect("it can be written");
    assert!(default["adapter"].is_object() && default["ia3"].is_null());

    let refused = |json: Value| configure::<UniPeltConfig>(fields(json)).expect_err("it is wrong");
    let error = refused(json!({"lora": {"use_gating": "no"}})).to_string();
    assert!(error.contains("use_gating = \"no\": must be true or false"), "{error}");
    let error = refused(json!({"prefix": null, "shared_gating": false})).to_string();
    assert_eq!(error, "shared_gating = false: is of a prefix with gates, and there is none");
    let nothing = json!({"prefix": null, "adapter": null, "lora": null});
    let error = refused(nothing).to_string();
    assert_eq!(error, "lora = null: one of prefix, adapter, lora and ia3 must be there");
}

#[test]
fn adapters_in_the_place_of_each_other_are_refused() {
    let host = Host::new(&Device::default());
    let refused = |adapters: Value| {
        let config = json!({"prefix": null, "lora": null, "adapter": adapters});
        let config = configure::<UniPeltConfig>(fields(config)).expect("no model is known yet");
        let device = Device::default();
        let method = config.init(&InitContext::new(host.model.base(), &device));
        method.map(|_| ()).map_err(|error| error.to_string())
    };
    let both = json!({"mh_adapter": true});
    let expected = "adapter = (a list): two of them are at bert.encoder.layer.0.output; tell them \
                    apart by mh_adapter, output_adapter and leave_out";
    assert_eq!(refused(json!([{}, both])), Err(expected.into()));
    assert_eq!(refused(json!([{"leave_out": [0]}, {"leave_out": [1]}])), Ok(()));
    let attention = |field: &str, value: Value| {
        json!([
            {field: value},
            {"mh_adapter": true, "output_adapter": false, field: value},
        ])
    };
    let expected = "adapter.inv_adapter = (given): only one of several adapters has it";
    assert_eq!(refused(attention("inv_adapter", json!("nice"))), Err(expected.into()));
    let expected = "adapter.shared_phm_rule = (given): only one of several adapters has it";
    assert_eq!(refused(attention("phm_layer", json!(true))), Err(expected.into()));
}

#[test]
fn what_would_lie_outside_of_the_gates_is_refused() {
    let cases = [
        (
            json!({"adapter": {"train_norms": true}}),
            "adapter.train_norms = (given): acts at norms, where there is no gate",
        ),
        (
            json!({"lora": {"bias": "all"}}),
            "lora.bias = (given): trains biases, which have no gate",
        ),
        (
            json!({"lora": {"rank_pattern": {"query": 2}}}),
            "lora.rank_pattern = (given): not with gates, which take the place of a scale that \
             depends on the rank",
        ),
    ];
    for (config, message) in cases {
        let mut config = fields(config);
        let refused = configure::<UniPeltConfig>(config.clone());
        assert_eq!(refused.expect_err("it has gates").to_string(), message);
        config.insert("use_gating".into(), false.into());
        configure::<UniPeltConfig>(config).expect("without gates it is one part beside others");
    }
    // What acts at the embeddings does so in full.
    let config = fields(json!({"adapter": {"inv_adapter": "nice"}}));
    configure::<UniPeltConfig>(config).expect("that library has it too");
}
