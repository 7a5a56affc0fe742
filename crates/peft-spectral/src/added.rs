//! A dense change of a weight.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{Edit, WeightMap};

/// `W + D`, for `D` of shape `[d_in, d_out]`.
pub(crate) fn added(change: Tensor<2>) -> Edit {
    Edit::Weight(Arc::new(Added(change)))
}

#[derive(Debug)]
struct Added(Tensor<2>);

impl WeightMap for Added {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() + self.0.clone()
    }

    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        Some(weight - self.0.clone())
    }
}
