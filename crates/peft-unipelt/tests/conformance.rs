//! Hybrids have the properties that every method must have.

use burn::tensor::{Device, Tensor};
use peft_adapter::{BottleneckConfig, ReductionFactor};
use peft_conformance::{Expect, HostKind, conformance};
use peft_core::{
    Base, Dialect, Exchange, Hooks, InitContext, LinearLayer, Memo, Method, MethodConfig, Mode,
    Pass, Probe, Role, Rows, Slots, configure,
};
use peft_format::Registry;
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use peft_unipelt::UniPeltConfig;
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

const PREFIX_VALUES: usize = PREFIX * 2 * LAYERS * HIDDEN;
const ADAPTER_VALUES: usize = LAYERS * (2 * HIDDEN * BOTTLENECK + BOTTLENECK + HIDDEN);
const LORA_VALUES: usize = LAYERS * 2 * RANK * 2 * HIDDEN;
/// One at each attention, at each feed-forward sublayer, at each query and value.
const GATES: usize = LAYERS * 4 * (HIDDEN + 1);

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

conformance!(
    unipelt,
    UniPeltConfig {
        prefix: Some(prefix()),
        adapter: Some(adapter()),
        lora: Some(lora()),
        use_gating: true
    },
    Expect {
        dropout: Some(&["prefix.dropout", "adapter.dropout", "lora.lora_dropout"]),
        ..trains(PREFIX_VALUES + ADAPTER_VALUES + LORA_VALUES + GATES)
    }
);

conformance!(
    mam,
    UniPeltConfig {
        prefix: Some(prefix()),
        adapter: Some(BottleneckConfig {
            is_parallel: true,
            original_ln_before: false,
            ..adapter()
        }),
        lora: None,
        use_gating: false
    },
    trains(PREFIX_VALUES + ADAPTER_VALUES)
);

conformance!(
    gated_lora,
    UniPeltConfig { prefix: None, adapter: None, lora: Some(lora()), use_gating: true },
    Expect {
        identity_at_init: true,
        dropout: Some(&["lora.lora_dropout"]),
        ..trains(LORA_VALUES + LAYERS * 2 * (HIDDEN + 1))
    }
);

conformance!(
    gated_parts_of_a_fused_projection,
    UniPeltConfig {
        prefix: None,
        adapter: None,
        lora: Some(LoraConfig {
            attn_matrices: serde_json::from_value(json!(["q", "v"])).expect("they can be read"),
            ..lora()
        }),
        use_gating: true
    },
    Expect {
        dropout: Some(&["lora.lora_dropout"]),
        // The others have projections of their own.
        unfit: &[HostKind::Bert, HostKind::Llama, HostKind::T5],
        ..Expect::default()
    }
);

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("an object") };
    fields
}

#[test]
fn what_would_lie_outside_of_the_gates_is_refused() {
    let cases = [
        (
            json!({"adapter": {"inv_adapter": "nice"}}),
            "adapter.inv_adapter = (given): acts at the embeddings, where there is no gate",
        ),
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
}

/// A projection `[4, 6]` that is query, key and value in one.
fn fused() -> Base {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([4, 6], &device);
    base.conv1d("h.0.attn.c_attn", Role::QueryKeyValue, Some(0), weight, None);
    base
}

#[test]
fn each_part_of_a_fused_projection_has_a_gate() {
    let base = fused();
    // As adapter-hub/adapters writes a LoRA with gates, outside of a union.
    let file = fields(json!({
        "alpha": 2, "architecture": "lora", "attn_matrices": ["q", "v"], "composition_mode": "add",
        "dropout": 0.0, "dtype": null, "init_weights": "lora", "init_weights_seed": null,
        "intermediate_lora": false, "leave_out": [], "output_lora": false, "r": 2,
        "selfattn_lora": true, "use_dora": false, "use_gating": true, "vera_b": null,
        "vera_d": null,
    }));
    let mut registry = Registry::new();
    registry.register::<LoraConfig>().register::<UniPeltConfig>();
    let config =
        registry.configure_adapters(&file, &base).expect("it is supported").expect("a LoRA");
    assert_eq!(config.name(), "unipelt");
    let config = configure::<UniPeltConfig>(config.to_fields()).expect("it is one");
    assert_eq!(config.to_adapters(&base).expect("that library has it"), Value::Object(file));

    let device = Device::default();
    let mut method = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let site = base.sites().next().expect("there is one");
    let (rows, slots, memo) = (Rows::packed(&[3, 2], &device), Slots::default(), Memo::new());
    let probe = Probe::default();
    let (mode, watched) = (Mode::Infer, Some(&probe));
    let pass = Pass { rows: &rows, slots: &slots, mode, memo: &memo, probe: watched };
    let layer = LinearLayer::new(site, base.weight(site), None);
    method.linear(site, &pass).apply(&layer, Tensor::ones([5, 4], &device), &pass);
    let seen = probe.observations();
    let seen: Vec<(&str, usize)> = seen.iter().map(|o| (o.name.as_str(), o.count)).collect();
    assert_eq!(seen, [("lora_gate.0", 2), ("lora_gate.1", 2)]);
    let mut described = Exchange::describe().in_dialect(Dialect::adapters("task"));
    method.exchange(&mut described, &base);
    let found: Vec<(String, Vec<usize>)> =
        described.into_specs().into_iter().map(|spec| (spec.key, spec.shape)).collect();
    let key = |name: &str| format!("h.0.attn.c_attn.loras.task.{name}");
    let expected = [
        (key("lora_A"), vec![4, 4]),
        (key("lora_B"), vec![4, 2]),
        (key("gate.weight"), vec![2, 4]),
        (key("gate.bias"), vec![2]),
    ];
    assert_eq!(found, expected);
}
