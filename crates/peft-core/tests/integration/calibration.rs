//! Batches that a method looks at before it is trained.

use burn::tensor::Tensor;
use peft_core::{Calibration, Edits, Hooks, LinearLayer, Result, Site, base_gradients};

use crate::support::{HIDDEN, INNER, Parts, assert_close, device, linears, random};

/// The mean square of a layer's output for one batch, and for another that asks nothing.
struct Squares<'b> {
    site: &'b Site,
    layer: LinearLayer<'b>,
    x: Tensor<2>,
}

impl Calibration for Squares<'_> {
    fn len(&self) -> usize {
        2
    }

    fn loss(&self, batch: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        if batch == 1 {
            return Ok(Tensor::zeros([1], &device()));
        }
        let parts = Parts::packed(&[4]);
        let edits: Edits = hooks.linear(self.site, &parts.pass());
        Ok(edits.apply(&self.layer, self.x.clone(), &parts.pass()).square().mean())
    }
}

#[test]
fn a_batch_that_asks_nothing_adds_nothing_to_the_mean() {
    let base = linears(&["query"]);
    let site = base.sites().next().expect("one");
    let layer = LinearLayer::new(site, base.weight(site), None);
    let x = random::<2>([4, HIDDEN]);
    let squares = Squares { site, layer, x: x.clone() };
    let of = |batches| {
        let found = base_gradients(&squares, &base, &[site], batches).expect("it fits");
        found[&site.index].clone().inner()
    };
    let y = x.clone().matmul(base.weight(site).dense());
    let expected = x.transpose().matmul(y) * 2.0 / (4 * INNER) as f64;
    assert_close(of(1), expected.clone());
    assert_close(of(2), expected / 2.0);
}
