//! Spectral methods have the properties that every method must have.

use burn::tensor::{Device, Distribution, Tensor};
use peft_conformance::{Expect, HostKind, conformance};
use peft_core::{
    Base, BiasChoice, BoxedMethod, EmptyPass, Hooks, InitContext, LinearLayer, MethodConfig,
    ModuleNames, Role, Stack, Targets,
};
use peft_spectral::{C3aConfig, C3aInit, FourierFtConfig};
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

/// Random values start away from the base.
fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), identity_at_init: false, ..Expect::default() }
}

fn on(names: &[&str]) -> Targets {
    let target_modules = Some(ModuleNames::list(names.iter().copied()));
    Targets { target_modules, ..Targets::default() }
}

fn c3a(block_size: usize) -> C3aConfig {
    C3aConfig { block_size, ..C3aConfig::default() }
}

conformance!(
    c3a_of_blocks,
    C3aConfig { init: C3aInit::Gaussian, ..c3a(8) },
    // The T5 host has layers of 30 outputs.
    Expect { unfit: &[HostKind::T5], ..trains(LAYERS * 2 * HIDDEN * HIDDEN / 8) }
);

conformance!(
    c3a_from_the_base,
    C3aConfig {
        init: C3aInit::Zeros,
        bias: BiasChoice::Only("c3a_only".into()),
        block_size_pattern: [("output.dense".to_string(), 4)].into_iter().collect(),
        targets: on(&["query", "output.dense"]),
        ..c3a(8)
    },
    Expect {
        identity_at_init: true,
        unfit: HostKind::OTHERS,
        // A kernel of the attention's output and one of the network's are of blocks of 4.
        ..trains(
            LAYERS * (HIDDEN * HIDDEN / 8 + HIDDEN * HIDDEN / 4 + INNER * HIDDEN / 4 + 3 * HIDDEN)
        )
    }
);

fn fourier() -> FourierFtConfig {
    FourierFtConfig { frequencies: 60, ..FourierFtConfig::default() }
}

// Few frequencies need not reach every rank.
conformance!(fourierft, fourier(), Expect { reaches_change: false, ..trains(LAYERS * 2 * 60) });

conformance!(
    fourierft_from_the_base,
    FourierFtConfig {
        init: true,
        scaling: 300.0,
        bias: BiasChoice::All,
        frequency_pattern: [("value".to_string(), 80)].into_iter().collect(),
        targets: on(&["value", "output.dense"]),
        ..fourier()
    },
    Expect { reaches_change: false, unfit: HostKind::OTHERS, ..Expect::default() }
);

/// The change of a layer's weight, `[d_in, d_out]`, row by row.
fn change<C: MethodConfig>(fields: Value, [d_in, d_out]: [usize; 2]) -> Vec<f32> {
    let device = Device::default();
    let mut base = Base::new(&device);
    base.linear("q", Role::Query, None, Tensor::zeros([d_in, d_out], &device), None);
    let config: C = serde_json::from_value(fields).expect("it can be read");
    let method = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let parts = EmptyPass::new(&device);
    let site = base.sites().next().expect("one");
    let layer = LinearLayer::new(site, base.weight(site), None);
    let (weight, _) = method.linear(site, &parts.pass()).dense(&layer);
    weight.into_data().try_into_vec().expect("floats")
}

#[test]
fn blocks_are_circulant() {
    let weight = change::<C3aConfig>(json!({"block_size": 4, "init_weights": "gaussian"}), [8, 12]);
    let at = |i: usize, j: usize| weight[i * 12 + j];
    for (block, column) in [(0, 0), (4, 0), (0, 8), (4, 4)] {
        for i in 0..4 {
            for j in 0..4 {
                let next = at(block + (i + 1) % 4, column + (j + 1) % 4);
                assert_eq!(at(block + i, column + j), next);
            }
        }
    }
}

#[test]
fn a_change_is_the_real_part_of_an_inverse_transform() {
    let (d_in, d_out, count) = (6, 10, 7);
    let weight = change::<FourierFtConfig>(json!({"n_frequency": count}), [d_in, d_out]);
    // As many cosines, so that the sum of squares is that of few frequencies: the spectrum of the change
    // is zero at all places but the chosen ones, and their opposites.
    let spectrum = |u: usize, v: usize| {
        let term = |part: fn(f64) -> f64| {
            let mut sum = 0.0;
            for i in 0..d_in {
                for o in 0..d_out {
                    let turn = (o * u) as f64 / d_out as f64 + (i * v) as f64 / d_in as f64;
                    let angle = std::f64::consts::TAU * turn;
                    sum += f64::from(weight[i * d_out + o]) * part(angle);
                }
            }
            sum
        };
        term(f64::cos).hypot(term(f64::sin))
    };
    let chosen = peft_core::torch_permutation(d_in * d_out, 777, count);
    for place in 0..d_in * d_out {
        let (u, v) = (place / d_in, place % d_in);
        let opposite = (d_out - u) % d_out * d_in + (d_in - v) % d_in;
        let is_there = chosen.contains(&place) || chosen.contains(&opposite);
        assert_eq!(spectrum(u, v) > 1e-3, is_there, "[{u}, {v}]: {}", spectrum(u, v));
    }
}

/// Where two are active, HF PEFT gives the second what the first returns.
#[test]
fn two_adapters_add_up() {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::random([8, 12], Distribution::Normal(0.2, 1.5), &device);
    base.linear("q", Role::Query, None, weight, None);
    let made = |seed: u64| {
        let fields = json!({"block_size": 4, "init_weights": "gaussian"});
        let config: C3aConfig = serde_json::from_value(fields).expect("it can be read");
        let context = InitContext::new(&base, &device).with_seed(seed);
        BoxedMethod::new(config.init(&context).expect("it fits"))
    };
    let (first, second) = (made(1), made(2));
    let x = Tensor::<2>::random([5, 8], Distribution::Normal(-0.3, 2.0), &device);
    let parts = EmptyPass::new(&device);
    let site = base.sites().next().expect("one");
    let layer = LinearLayer::new(site, base.weight(site), None);
    let under = |method: &dyn Hooks| {
        method.linear(site, &parts.pass()).apply(&layer, x.clone(), &parts.pass())
    };
    let plain = under(&());
    let sum = under(&first) + under(&second) - plain;
    let both = under(&Stack::new(vec![first, second]));
    assert!((both - sum).abs().max().into_scalar::<f32>() < 1e-4);
}
