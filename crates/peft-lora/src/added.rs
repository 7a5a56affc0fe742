//! A dense change of a weight.

use burn::tensor::Tensor;
use peft_core::{Change, Site, WeightMap};

/// `W + D`.
#[derive(Debug)]
pub(crate) struct Added {
    /// `D`, `[d_in, d_out]`.
    pub(crate) values: Tensor<2>,
    /// The largest rank that it can have.
    pub(crate) rank: usize,
}

impl WeightMap for Added {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() + self.values.clone()
    }

    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        Some(weight - self.values.clone())
    }

    fn change(&self, site: &Site) -> Change {
        let [d_in, d_out] = site.shape;
        Change { weight: d_in * d_out, bias: 0, rank: self.rank.min(d_in).min(d_out) }
    }
}
