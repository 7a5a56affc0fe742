//! Batches that a method looks at before it is trained.

use burn::tensor::Tensor;
use peft_core::{
    Calibration, Edits, Hooks, LinearLayer, Result, Site, base_gradients, fisher_diagonal,
};

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

    fn num_examples(&self) -> usize {
        self.x.dims()[0] + 1
    }

    /// Half the square of the output of each row, and a last one that asks nothing.
    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        if example == self.x.dims()[0] {
            return Ok(Tensor::zeros([1], &device()));
        }
        let parts = Parts::packed(&[1]);
        let edits: Edits = hooks.linear(self.site, &parts.pass());
        let x = self.x.clone().narrow(0, example, 1);
        Ok(edits.apply(&self.layer, x, &parts.pass()).square().sum() / 2.0)
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

#[test]
fn the_fisher_diagonal_is_the_mean_of_each_examples_squared_gradient() {
    let base = linears(&["query"]);
    let site = base.sites().next().expect("one");
    let layer = LinearLayer::new(site, base.weight(site), None);
    let x = random::<2>([4, HIDDEN]) * 1.7;
    let squares = Squares { site, layer, x: x.clone() };
    // The gradient of ‖x W‖² / 2 is xᵀ x W.
    let of_row = |row: usize| {
        let x = x.clone().narrow(0, row, 1);
        x.clone().transpose().matmul(x.matmul(base.weight(site).dense()))
    };
    let sum = |rows: std::ops::Range<usize>| {
        rows.map(|row| of_row(row).square()).reduce(|sum, term| sum + term).expect("some")
    };
    let of = |examples| {
        let found = fisher_diagonal(&squares, &base, &[site], examples).expect("it fits");
        found[&site.index].clone().inner()
    };
    assert_close(of(3), sum(0..3) / 3.0);
    // The last one adds nothing, and is counted; there are no more.
    assert_close(of(100), sum(0..4) / 5.0);
    // Not the square of the mean.
    let mean = (0..3).map(of_row).reduce(|sum, term| sum + term).expect("some") / 3.0;
    let distance = (of(3) - mean.square()).abs().max().into_scalar::<f32>();
    assert!(distance > 1e-2, "{distance}");
    let error = fisher_diagonal(&squares, &base, &[site], 0).expect_err("none").to_string();
    assert_eq!(error, "calibration = 0: there must be at least one example to look at");
}
