//! What masks, and what is trained in phases, do beside what every method does.

mod entries;
mod phases;

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{Base, EmptyPass, Exchange, Hooks, LinearLayer, Method, Site, TensorMap};

/// The weight and the base's at a site.
fn weights(method: &dyn Hooks, base: &Base, site: &Site) -> [Tensor<2>; 2] {
    let parts = EmptyPass::new(base.device());
    let layer = LinearLayer::new(site, base.weight(site), None);
    [method.linear(site, &parts.pass()).dense(&layer).0, base.weight(site).dense()]
}

/// The change of each weight `[d_out, d_in]`, in the order of the model.
fn changes(method: &dyn Hooks, base: &Base) -> Vec<Vec<f32>> {
    let of = |site: &Arc<Site>| {
        let [found, before] = weights(method, base, site).map(numbers);
        found.iter().zip(before).map(|(found, before)| found - before).collect()
    };
    base.linears().map(of).collect()
}

/// The numbers of `[d_in, d_out]` in the order of `[d_out, d_in]`.
fn numbers(weight: Tensor<2>) -> Vec<f32> {
    weight.transpose().into_data().convert::<f32>().try_into_vec().expect("floats")
}

fn file(method: &mut impl Method, base: &Base) -> TensorMap {
    let mut tensors = TensorMap::new();
    method.exchange(&mut Exchange::write(&mut tensors), base);
    tensors
}

/// Which entries a file has, of each weight.
fn places(tensors: &TensorMap, base: &Base) -> Vec<(String, Vec<i64>)> {
    let of = |site: &Arc<Site>| {
        let data = tensors.get(&site.key("sparse_indices"))?.clone().convert::<i64>();
        Some((site.path.clone(), data.try_into_vec().expect("whole numbers")))
    };
    base.linears().filter_map(of).collect()
}
