//! Bottleneck adapters and their variants have the properties that every method must have.

use peft_adapter::{
    BottleneckConfig, InitWeights, InvertibleKind, KronaAdapterConfig, Pruning, ReductionFactor,
    ReftConfig, ReftLayers, ResidualBeforeNorm, Scaling, SparseAdapterConfig, presets,
};
use peft_conformance::{Expect, conformance};
use peft_core::{Activation, KroneckerShape};

const HIDDEN: usize = 24;
const LAYERS: usize = 2;

/// A preset, or the defaults, with a bottleneck of this width.
fn preset(name: &str, width: usize) -> BottleneckConfig {
    let presets = presets();
    let found = presets.into_iter().find(|(preset, ..)| *preset == name);
    let config = found.map_or(BottleneckConfig::default(), |(_, _, fields)| {
        serde_json::from_value(fields).expect("a preset can be read")
    });
    BottleneckConfig { bottleneck_size: Some(width), ..config }
}

/// One adapter after each feed-forward network, that starts as the identity.
fn pfeiffer() -> BottleneckConfig {
    BottleneckConfig { init_weights: InitWeights::MamAdapter, ..preset("pfeiffer", WIDTH) }
}

const WIDTH: usize = 8;
/// `W_d`, `b_d`, `W_u`, `b_u`.
const ADAPTER: usize = 2 * HIDDEN * WIDTH + WIDTH + HIDDEN;
/// Gain and bias.
const NORM: usize = 2 * HIDDEN;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

/// The start is near the base, not the base itself. Where it is nearer than the suite can tell
/// from the base, a wide bottleneck or a large scale moves it away.
fn near(trainable: usize) -> Expect {
    Expect { identity_at_init: false, ..trains(trainable) }
}

const WIDE: usize = 4 * HIDDEN;
const WIDE_ADAPTER: usize = 2 * HIDDEN * WIDE + WIDE + HIDDEN;

conformance!(default, preset("pfeiffer", WIDE), near(LAYERS * WIDE_ADAPTER));

conformance!(houlsby, preset("houlsby", WIDE), near(2 * LAYERS * WIDE_ADAPTER));

conformance!(
    houlsby_start,
    BottleneckConfig {
        init_weights: InitWeights::Houlsby,
        scaling: Scaling::Fixed(8.0),
        ..preset("houlsby", WIDE)
    },
    near(2 * LAYERS * WIDE_ADAPTER)
);

conformance!(
    trained_norms,
    BottleneckConfig {
        init_weights: InitWeights::MamAdapter,
        train_norms: true,
        ..preset("houlsby", WIDTH)
    },
    trains(LAYERS * (2 * ADAPTER + 2 * NORM))
);

conformance!(
    reduction_factors,
    BottleneckConfig {
        bottleneck_size: None,
        reduction_factor: ReductionFactor::PerLayer(
            [("1".into(), 4.0), ("default".into(), 2.4)].into()
        ),
        ..super::pfeiffer()
    },
    trains(2 * HIDDEN * (10 + 6) + 10 + 6 + 2 * HIDDEN)
);

conformance!(pfeiffer, super::pfeiffer(), trains(LAYERS * ADAPTER));

conformance!(parallel, preset("parallel", WIDTH), trains(LAYERS * ADAPTER));

conformance!(scaled_parallel, preset("scaled-parallel", WIDTH), trains(LAYERS * ADAPTER));

conformance!(
    parallel_with_norm,
    BottleneckConfig { ln_after: true, mh_adapter: true, ..preset("parallel", WIDTH) },
    trains(2 * LAYERS * (ADAPTER + NORM))
);

conformance!(
    learned_scale,
    BottleneckConfig { scaling: Scaling::Learned, ..super::pfeiffer() },
    trains(LAYERS * (ADAPTER + 1))
);

conformance!(
    channel_scale,
    BottleneckConfig { scaling: Scaling::Channel, ..super::pfeiffer() },
    trains(LAYERS * (ADAPTER + HIDDEN))
);

conformance!(
    residual_from_the_norm,
    BottleneckConfig { residual_before_ln: ResidualBeforeNorm::Input, ..super::pfeiffer() },
    near(LAYERS * ADAPTER)
);

conformance!(
    residual_from_the_sum,
    BottleneckConfig { residual_before_ln: ResidualBeforeNorm::PostAdd, ..super::pfeiffer() },
    near(LAYERS * ADAPTER)
);

conformance!(
    norms_before_and_after,
    BottleneckConfig { ln_before: true, ln_after: true, ..super::pfeiffer() },
    trains(LAYERS * (ADAPTER + 2 * NORM))
);

conformance!(
    norm_after_the_residual,
    BottleneckConfig { ln_after: true, adapter_residual_before_ln: true, ..super::pfeiffer() },
    near(LAYERS * (ADAPTER + NORM))
);

conformance!(
    one_layer_left_out,
    BottleneckConfig { leave_out: vec![0], ..super::pfeiffer() },
    trains(ADAPTER)
);

/// `n`, unless another is said.
const PRODUCTS: usize = 4;
const RULE: usize = PRODUCTS * PRODUCTS * PRODUCTS;
/// `W_left`, `W_right` and a bias of both projections.
const COMPACTER: usize = 2 * (HIDDEN + WIDTH) + WIDTH + HIDDEN;

/// A rule of each layer's own starts near zero, at a distance that the suite takes neither for the
/// base nor for another model; a scale moves it away.
fn scaled(config: BottleneckConfig) -> BottleneckConfig {
    BottleneckConfig { scaling: Scaling::Fixed(32.0), ..config }
}

conformance!(
    phm,
    scaled(preset("phm", WIDTH)),
    near(2 * LAYERS * (2 * RULE + 2 * HIDDEN * WIDTH / PRODUCTS + WIDTH + HIDDEN))
);

// A shared rule starts so near to zero that the first output is the base's to five digits.
conformance!(compacter, preset("compacter", WIDTH), trains(2 * LAYERS * COMPACTER + RULE));

conformance!(compacter_plus_plus, preset("compacter++", WIDTH), trains(LAYERS * COMPACTER + RULE));

conformance!(
    shared_weights,
    BottleneckConfig { shared_w_phm: true, ..preset("compacter", WIDTH) },
    trains(2 * (HIDDEN + WIDTH) + 2 * LAYERS * (WIDTH + HIDDEN) + RULE)
);

conformance!(
    shared_full_weights,
    BottleneckConfig {
        shared_w_phm: true,
        factorized_phm_w: false,
        phm_bias: false,
        ..preset("compacter", WIDTH)
    },
    trains(2 * HIDDEN * WIDTH / PRODUCTS + RULE)
);

conformance!(
    factored_rule_of_rank_two_weights,
    BottleneckConfig {
        phm_dim: 2,
        phm_rank: 2,
        factorized_phm_rule: true,
        ..preset("compacter", WIDTH)
    },
    trains(2 * LAYERS * (2 * 2 * (HIDDEN + WIDTH) + WIDTH + HIDDEN) + 2 * 2 * 2)
);

conformance!(
    fixed_rule,
    BottleneckConfig {
        learn_phm: false,
        shared_phm_rule: false,
        phm_dim: 8,
        scaling: Scaling::Fixed(32.0),
        ..preset("compacter", WIDTH)
    },
    near(2 * LAYERS * COMPACTER)
);

/// Two networks from one half of the channels to the other, with half as many between.
const NICE: usize = 2 * (2 * (HIDDEN / 2) * (HIDDEN / 4) + HIDDEN / 4 + HIDDEN / 2);
/// The same with twice as many outputs.
const GLOW: usize = NICE + 2 * ((HIDDEN / 2) * (HIDDEN / 4) + HIDDEN / 2);

fn invertible(kind: InvertibleKind, factor: Option<f64>) -> BottleneckConfig {
    BottleneckConfig {
        inv_adapter: Some(kind),
        inv_adapter_reduction_factor: factor,
        ..preset("pfeiffer", WIDE)
    }
}

conformance!(nice, invertible(InvertibleKind::Nice, None), near(LAYERS * WIDE_ADAPTER + NICE));

conformance!(glow, invertible(InvertibleKind::Glow, Some(2.0)), near(LAYERS * WIDE_ADAPTER + GLOW));

conformance!(
    nice_alone,
    BottleneckConfig { output_adapter: false, ..invertible(InvertibleKind::Nice, Some(1.0 / 8.0)) },
    // Dropout is of bottlenecks, and there is none.
    Expect {
        dropout: Some(&[]),
        ..near(2 * (2 * (HIDDEN / 2) * (4 * HIDDEN) + 4 * HIDDEN + HIDDEN / 2))
    }
);

conformance!(houlsby_inv, preset("houlsby-inv", WIDE), near(2 * LAYERS * WIDE_ADAPTER + NICE));

conformance!(
    adapterplus,
    BottleneckConfig { stochastic_depth: 0.0, ..preset("adapterplus", WIDE) },
    near(LAYERS * (WIDE_ADAPTER + HIDDEN))
);

conformance!(
    stochastic_depth,
    BottleneckConfig { stochastic_depth: 0.5, ..preset("houlsby", WIDE) },
    Expect { dropout: Some(&["stochastic_depth"]), ..near(2 * LAYERS * WIDE_ADAPTER) }
);

/// Interventions of rank 3 at two first and one last token, behind the first layer: of what leaves the
/// last one, BERT's head reads the first token alone.
fn reft() -> ReftConfig {
    ReftConfig {
        layers: ReftLayers::List(vec![0]),
        prefix_positions: 2,
        suffix_positions: 1,
        rank: 3,
        ..ReftConfig::default()
    }
}

/// `W`, `b` and `R`.
const UNIT: usize = 2 * HIDDEN * 3 + 3;

/// They start away from the base; a last token of what is read of a text is another one than that of
/// the whole.
fn changes_states(trainable: usize) -> Expect {
    Expect { identity_at_init: false, goes_on: false, ..trains(trainable) }
}

conformance!(loreft, reft(), changes_states(2 * UNIT));

conformance!(
    loreft_at_first_tokens,
    ReftConfig { layers: ReftLayers::All, suffix_positions: 0, ..reft() },
    Expect { goes_on: true, ..changes_states(LAYERS * UNIT) }
);

conformance!(
    noreft_tied_of_one_layer,
    ReftConfig {
        orthogonality: false,
        tied_weights: true,
        layers: ReftLayers::List(vec![1]),
        non_linearity: Some(Activation::Silu),
        ..reft()
    },
    changes_states(UNIT)
);

conformance!(
    direft,
    ReftConfig { orthogonality: false, subtract_projection: false, ..reft() },
    changes_states(2 * UNIT)
);

/// Of three experts down; of experts up too.
fn experts(config: BottleneckConfig) -> BottleneckConfig {
    BottleneckConfig { num_experts: 3, ..config }
}

conformance!(
    adamix,
    experts(preset("adamix", WIDE)),
    near(LAYERS * (3 * (HIDDEN * WIDE + WIDE) + WIDE * HIDDEN + HIDDEN))
);

conformance!(
    experts_of_both,
    BottleneckConfig {
        share_up: false,
        consistency_weight: 0.0,
        ..experts(preset("houlsby", WIDE))
    },
    near(2 * LAYERS * 3 * WIDE_ADAPTER)
);

/// A third is left.
fn sparse(adapter: BottleneckConfig, pruning: Pruning) -> SparseAdapterConfig {
    SparseAdapterConfig { adapter, sparsity: 2.0 / 3.0, pruning, calibration_batches: 2 }
}

/// The weights that are left of so many adapters, and the biases.
const fn left(adapters: usize, width: usize) -> usize {
    adapters * (2 * HIDDEN * width / 3 + width + HIDDEN)
}

conformance!(
    sparse_adapter,
    super::sparse(preset("pfeiffer", 2 * WIDE), Pruning::Snip),
    near(left(LAYERS, 2 * WIDE))
);

conformance!(
    sparse_houlsby_by_grasp,
    super::sparse(preset("houlsby", 2 * WIDE), Pruning::Grasp),
    near(left(2 * LAYERS, 2 * WIDE))
);

conformance!(
    sparse_parallel_by_density,
    super::sparse(preset("parallel", WIDTH), Pruning::Er),
    trains(left(LAYERS, WIDTH))
);

conformance!(
    sparse_by_chance_with_norms,
    super::sparse(
        BottleneckConfig {
            train_norms: true,
            reduction_factor: ReductionFactor::PerLayer(
                [("1".into(), 4.0), ("default".into(), 2.0)].into()
            ),
            bottleneck_size: None,
            ..preset("parallel", WIDTH)
        },
        Pruning::Random
    ),
    trains(left(1, 6) + left(1, 12) + LAYERS * 2 * NORM)
);

/// `A` and `B`, `[4, 4]` and `[6, 6]`.
const KRONECKER: usize = 4 * 4 + 6 * 6;

conformance!(
    krona_b,
    KronaAdapterConfig { scale: 1.7, ..KronaAdapterConfig::default() },
    trains(LAYERS * KRONECKER)
);

conformance!(
    krona_b_res,
    KronaAdapterConfig { residual: true, ..KronaAdapterConfig::default() },
    near(LAYERS * (KRONECKER + 1))
);

conformance!(
    krona_b_res_from_the_base,
    KronaAdapterConfig {
        shape: KroneckerShape { a_inputs: Some(2), a_outputs: Some(12) },
        residual: true,
        residual_start: 0.0,
        ..KronaAdapterConfig::default()
    },
    trains(LAYERS * (2 * 12 + 12 * 2 + 1))
);
