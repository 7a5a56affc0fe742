//! What a frozen matrix that is no tensor can do.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::LinearParts;

/// A frozen matrix that is not held as a tensor of its numbers.
pub trait PackedWeight: fmt::Debug + Send + Sync {
    /// Its shape.
    fn dims(&self) -> [usize; 2];

    /// The bytes that hold its numbers.
    fn num_bytes(&self) -> usize;

    /// Where its numbers are computed with.
    fn device(&self) -> Device;

    /// Its numbers, as a tensor that is made now.
    fn dense(&self) -> Tensor<2>;

    /// The same matrix the other way round, over the same bytes.
    fn transpose(&self) -> Arc<dyn PackedWeight>;

    /// `x W` for `[tokens, d_in]`. Gradients reach `x`; no tensor of the weight's numbers outlives
    /// the call.
    fn product(&self, input: Tensor<2>) -> Tensor<2>;

    /// `x W` with what a layer computes beside it.
    fn linear(&self, input: Tensor<2>, parts: LinearParts) -> Tensor<2> {
        parts.over(self.product(input.clone()), input)
    }

    /// The rows with these indices: `[n]` to `[n, d]`.
    ///
    /// # Panics
    /// If there is no such row.
    fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2>;
}
