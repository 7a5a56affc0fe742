//! KronA^B meets the feed-forward network as its equation says.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use peft_adapter::{KronaAdapter, KronaAdapterConfig};
use peft_conformance::Host;
use peft_core::{EmptyPass, Hooks, InitContext, KroneckerShape, MethodConfig, Role, SublayerEnd};

/// Factors away from their start.
struct Random;

impl ModuleMapper for Random {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.random_like(Distribution::Normal(0.3, 0.7)))
    }
}

fn product(host: &Host, residual: bool) -> KronaAdapter {
    let shape = KroneckerShape { a_inputs: Some(3), a_outputs: Some(12) };
    let config =
        KronaAdapterConfig { shape, scale: 1.7, residual, ..KronaAdapterConfig::default() };
    let device = Device::default();
    let context = InitContext::new(host.model.base(), &device);
    config.init(&context).expect("it fits").map(&mut Random)
}

#[test]
fn the_output_is_that_of_the_equation() {
    let device = Device::default();
    let host = Host::new(&device);
    let mut sites = host.model.base().sites();
    let site = sites.find(|site| site.role == Role::FeedForwardSublayer).expect("it has one");
    for residual in [false, true] {
        let adapter = product(&host, residual);
        let layer = adapter.layer(site).expect("it is adapted");
        // A ⊗ B, block by block.
        let (a, b) = (layer.krona_a.val(), layer.krona_b.val());
        assert_eq!((a.dims(), b.dims()), ([3, 12], [8, 2]));
        let numbers: Vec<f32> = a.into_data().try_into_vec().expect("floats");
        let row =
            |i: usize| Tensor::cat((0..12).map(|j| b.clone() * numbers[12 * i + j]).collect(), 1);
        let whole = Tensor::cat((0..3).map(row).collect(), 0);
        let states = [0, 1, 2]
            .map(|_| Tensor::<2>::random([6, 24], Distribution::Normal(0.0, 1.0), &device));
        let parts = EmptyPass::new(&device);
        let end = SublayerEnd::new(site, None, &(), states);
        let found = adapter.sublayer(site, &parts.pass()).forward(&end, &parts.pass());
        let x = end.input.clone();
        let mut expected = end.output.clone() + x.clone().matmul(whole) * 1.7;
        if let Some(factor) = &layer.residual {
            expected = expected + x * factor.val().unsqueeze();
        }
        assert_eq!(layer.residual.is_some(), residual);
        let tolerance = Tolerance::<f32>::absolute(1e-4);
        found.into_data().assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let refused = |fields| {
        let config: KronaAdapterConfig = serde_json::from_value(fields).expect("it can be read");
        let device = Device::default();
        let host = Host::new(&device);
        let context = InitContext::new(host.model.base(), &device);
        config.init(&context).map(|_| ()).expect_err("it makes no sense").to_string()
    };
    let zero = refused(serde_json::json!({ "scale": 0 }));
    assert_eq!(zero, "scale = 0: must be a number other than 0");
    let side = refused(serde_json::json!({ "a_inputs": 5 }));
    assert!(side.starts_with("a_inputs = 5: must divide the width 24 of "), "{side}");
}
