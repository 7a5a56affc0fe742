//! Rotations have the properties that every method must have.

use burn::tensor::Device;
use peft_conformance::{Expect, Host, HostKind, conformance};
use peft_core::{
    Base, BiasChoice, Error, Exchange, InitContext, Method, MethodConfig, ModuleNames, Targets,
};
use peft_oft::{BoftConfig, HraConfig, OftConfig, RoadConfig, RoadVariant};
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

/// Where nothing is dropped: of one block, for all or alone.
fn undropped(trainable: usize) -> Expect {
    Expect { dropout: Some(&[]), ..trains(trainable) }
}

/// The same on BERT alone, whose modules are named.
fn by_berts_names(trainable: usize) -> Expect {
    Expect { unfit: HostKind::OTHERS, ..undropped(trainable) }
}

fn on(names: &[&str]) -> Targets {
    let target_modules = Some(ModuleNames::list(names.iter().copied()));
    Targets { target_modules, ..Targets::default() }
}

// Queries and values.
conformance!(oft, OftConfig::default(), undropped(LAYERS * 2 * (HIDDEN * (HIDDEN - 1) / 2)));

fn oft(block_size: usize) -> OftConfig {
    OftConfig { block_size, ..OftConfig::default() }
}

conformance!(oft_of_pairs, oft(2), trains(LAYERS * 2 * HIDDEN / 2));

conformance!(
    oft_exact,
    OftConfig { use_cayley_neumann: false, ..oft(4) },
    undropped(LAYERS * 2 * HIDDEN * 3 / 2)
);

conformance!(
    oft_by_number,
    OftConfig { blocks: 8, block_size: 0, targets: on(&["output.dense"]), ..OftConfig::default() },
    // Blocks of 3 at the attention's output, and of 5 at the network's: each has an axis that stays.
    Expect { reaches_change: false, ..by_berts_names(LAYERS * (8 * 3 + 8 * 10)) }
);

conformance!(
    oft_shared,
    OftConfig { block_share: true, terms: 8, targets: on(&["query", "output.dense"]), ..oft(8) },
    by_berts_names(LAYERS * 3 * 28)
);

conformance!(
    oft_constrained,
    OftConfig { coft: true, eps: 0.4, bias: BiasChoice::Only("oft_only".into()), ..oft(4) },
    Expect {
        // Its gradient is that of where it is projected to.
        exact_gradient: false,
        dropout: Some(&[]),
        ..Expect::default()
    }
);

conformance!(
    oft_random,
    OftConfig { init: false, ..oft(4) },
    Expect { identity_at_init: false, dropout: Some(&[]), ..Expect::default() }
);

conformance!(hra, HraConfig::default(), trains(LAYERS * 2 * 8 * HIDDEN));

conformance!(
    hra_odd,
    HraConfig { rank: 3, bias: BiasChoice::All, ..HraConfig::default() },
    Expect { identity_at_init: false, ..Expect::default() }
);

conformance!(
    hra_orthogonal,
    HraConfig { rank: 4, orthogonal: true, ..HraConfig::default() },
    Expect { identity_at_init: false, ..trains(LAYERS * 2 * 4 * HIDDEN) }
);

fn road(variant: RoadVariant) -> RoadConfig {
    RoadConfig { variant, group_size: 8, ..RoadConfig::default() }
}

/// The T5 host has layers of 30 outputs.
fn in_groups(trainable: usize) -> Expect {
    Expect { unfit: &[HostKind::T5], ..trains(trainable) }
}

conformance!(road_1, road(RoadVariant::One), in_groups(LAYERS * 2 * HIDDEN));
conformance!(road_2, road(RoadVariant::Two), in_groups(LAYERS * 2 * 2 * HIDDEN));
conformance!(road_4, road(RoadVariant::Four), in_groups(LAYERS * 2 * 4 * HIDDEN));

conformance!(
    boft,
    BoftConfig { block_size: 2, ..BoftConfig::default() },
    trains(LAYERS * 2 * (2 * HIDDEN + HIDDEN))
);

conformance!(
    boft_by_number,
    BoftConfig {
        block_size: 0,
        blocks: 4,
        factors: 2,
        bias: BiasChoice::Only("boft_only".into()),
        targets: on(&["query", "output.dense"]),
        ..BoftConfig::default()
    },
    by_berts_names(LAYERS * (2 * (6 * HIDDEN + HIDDEN + HIDDEN) + 10 * INNER + HIDDEN + HIDDEN))
);

fn keys<C: MethodConfig>(config: &C, base: &Base) -> Vec<(String, Vec<usize>)> {
    let mut method = config.init(&InitContext::new(base, &Device::default())).expect("it fits");
    let mut file = Exchange::describe();
    method.exchange(&mut file, base);
    file.into_specs().into_iter().map(|spec| (spec.key, spec.shape)).collect()
}

#[test]
fn keys_are_hf_pefts() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let key =
        |name: &str| format!("base_model.model.bert.encoder.layer.0.attention.self.query.{name}");
    let boft = BoftConfig { bias: BiasChoice::Only("boft_only".into()), ..BoftConfig::default() };
    assert_eq!(
        keys(&boft, base)[..3],
        [
            (key("boft_R"), vec![1, 6, 4, 4]),
            (key("boft_s"), vec![24, 1]),
            (key("base_layer.bias"), vec![24]),
        ]
    );
    assert_eq!(keys(&oft(8), base)[0], (key("oft_R.weight"), vec![3, 28]));
    assert_eq!(keys(&HraConfig::default(), base)[0], (key("hra_u"), vec![24, 8]));
    assert_eq!(keys(&road(RoadVariant::Four), base)[1], (key("road_alpha"), vec![48]));
}

#[test]
fn a_size_that_does_not_divide_the_inputs_is_the_nearest_that_does() {
    let number = |blocks| OftConfig { blocks, block_size: 0, ..OftConfig::default() };
    assert_eq!(oft(32).blocks_of(24), [1, 24]);
    assert_eq!(oft(32).blocks_of(40), [1, 40]);
    assert_eq!(oft(7).blocks_of(24), [4, 6]);
    assert_eq!(oft(32).blocks_of(768), [24, 32]);
    assert_eq!(number(5).blocks_of(24), [4, 6]);
    assert_eq!(number(100).blocks_of(24), [24, 1]);
}

fn error<C: MethodConfig>(fields: Value) -> String {
    let host = Host::new(&Device::default());
    let config: C = serde_json::from_value(fields).expect("it can be read");
    let context = InitContext::new(host.model.base(), host.model.base().device());
    config.init(&context).err().map(|error: Error| error.to_string()).expect("it is an error")
}

#[test]
fn what_makes_no_sense_is_said() {
    let query = "bert.encoder.layer.0.attention.self.query [24, 24]";
    assert_eq!(
        error::<OftConfig>(json!({"r": 4})),
        "r = 4: there are as many blocks as their size leaves: give r = 0 with it, or \
         oft_block_size = 0, which is 32"
    );
    assert_eq!(
        error::<OftConfig>(json!({"r": 24, "oft_block_size": 0})),
        format!("r = 24: leaves blocks of one number at {query}, which cannot turn")
    );
    assert_eq!(
        error::<OftConfig>(json!({"bias": "some"})),
        "bias = \"some\": must be none, all or oft_only"
    );
    assert_eq!(
        error::<RoadConfig>(json!({})),
        format!("group_size = 64: must divide the 24 outputs of {query}")
    );
    assert_eq!(
        error::<BoftConfig>(json!({"boft_block_size": 5})),
        format!("boft_block_size = 5: must divide the 24 inputs of {query}")
    );
    assert_eq!(
        error::<HraConfig>(json!({"r": 25, "apply_GS": true})),
        format!("r = 25: must be at most 24 at {query}, with apply_GS")
    );
}
