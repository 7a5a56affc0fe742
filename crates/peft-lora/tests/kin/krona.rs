use burn::module::Param;
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use peft_conformance::{Expect, HostKind, conformance};
use peft_core::{
    Base, EmptyPass, FrozenWeight, Hooks, InitContext, KroneckerShape, LinearLayer, MethodConfig,
    Role,
};
use peft_lora::KronaConfig;

use super::{all_linear, over_all, trains};

fn on_all_linear() -> KronaConfig {
    KronaConfig { scale: 1.7, targets: all_linear(), ..KronaConfig::default() }
}

/// 24 = 4 · 6 and 40 = 5 · 8.
fn divided(number: usize) -> [usize; 2] {
    if number == 24 { [4, 6] } else { [5, 8] }
}

conformance!(
    krona,
    on_all_linear(),
    trains(over_all(|[d_in, d_out]| {
        let ([m, n], [k, l]) = (divided(d_in), divided(d_out));
        m * k + n * l
    }))
);
conformance!(default, KronaConfig::default(), trains(2 * 2 * (4 * 4 + 6 * 6)));
conformance!(
    sides_that_are_given,
    KronaConfig {
        shape: KroneckerShape { a_inputs: Some(12), a_outputs: Some(2) },
        ..KronaConfig::default()
    },
    // A matrix of queries, keys and values has other sides on some hosts.
    trains(2 * 2 * (12 * 2 + 2 * 12))
);
conformance!(
    random,
    KronaConfig { init: false, scale: 0.5, ..on_all_linear() },
    Expect { identity_at_init: false, ..Expect::default() }
);
conformance!(
    a_side_that_does_not_divide,
    KronaConfig {
        shape: KroneckerShape { a_inputs: Some(24), a_outputs: Some(24) },
        ..KronaConfig::default()
    },
    Expect { unfit: NOT_DIVIDED, ..trains(2 * 2 * (24 * 24 + 1)) }
);
/// Their projections have another width.
const NOT_DIVIDED: &[HostKind] = &[HostKind::Llama, HostKind::T5];

#[test]
fn the_change_is_the_kronecker_product_of_the_file_s_tensors() {
    let device = Device::default();
    let mut base = Base::new(&device);
    let normal = Distribution::Normal(0.0, 1.0);
    let (d_in, d_out) = (12, 20);
    let weight = Tensor::<2>::random([d_in, d_out], normal, &device);
    let site = base.linear("q", Role::Query, Some(0), weight.clone(), None);
    let shape = KroneckerShape { a_inputs: Some(2), a_outputs: Some(5) };
    let config = KronaConfig { shape, scale: 1.5, init: false, ..KronaConfig::default() };
    let krona = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let layer = krona.layer(&site).expect("it is adapted");
    let numbers = |factor: &Param<Tensor<2>>| -> Vec<f32> {
        factor.val().into_data().try_into_vec().expect("floats")
    };
    let (a, b) = (numbers(&layer.krona_a), numbers(&layer.krona_b));
    // The block (i, j) is A[i, j] B.
    let mut change = vec![0.0; d_in * d_out];
    for (i, j) in (0..2).flat_map(|i| (0..5).map(move |j| (i, j))) {
        for (p, q) in (0..6).flat_map(|p| (0..4).map(move |q| (p, q))) {
            change[(6 * i + p) * d_out + 4 * j + q] = 1.5 * a[5 * i + j] * b[4 * p + q];
        }
    }
    let change = Tensor::<1>::from_data(&change[..], &device).reshape([d_in, d_out]);
    let frozen = FrozenWeight::from(weight.clone());
    let over = LinearLayer::new(&site, &frozen, None);
    let parts = EmptyPass::new(&device);
    let edits = krona.linear(&site, &parts.pass());
    let close = |found: Tensor<2>, expected: Tensor<2>| {
        let tolerance = Tolerance::<f32>::absolute(1e-4);
        found.into_data().assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    };
    close(edits.dense(&over).0, weight.clone() + change.clone());
    let x = Tensor::<2>::random([7, d_in], normal, &device);
    close(edits.apply(&over, x.clone(), &parts.pass()), x.matmul(weight + change));
}
