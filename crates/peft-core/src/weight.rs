//! Frozen weights, as tensors or packed.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, module::linear};
use peft_kernels::{LinearParts, PackedWeight, cross_entropy_of_product};

/// A frozen matrix: the weight `[d_in, d_out]` of a linear layer, or the table `[entries, d]` of an
/// embedding.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are tensors, which would gain nothing")]
pub enum FrozenWeight {
    /// A tensor.
    Dense(Tensor<2>),
    /// Laid out for products, or with fewer bits for each number.
    Packed(Arc<dyn PackedWeight>),
}

impl FrozenWeight {
    /// Its shape.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Packed(weight) => weight.dims(),
        }
    }

    /// The bytes that hold its numbers.
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.shape().num_elements() * weight.dtype().size(),
            Self::Packed(weight) => weight.num_bytes(),
        }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device(),
            Self::Packed(weight) => weight.device(),
        }
    }

    /// Its numbers as a tensor; that of a packed weight is made now.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.clone(),
            Self::Packed(weight) => weight.dense(),
        }
    }

    /// The same matrix the other way round, over the same bytes.
    pub fn transpose(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone().transpose()),
            Self::Packed(weight) => Self::Packed(weight.transpose()),
        }
    }

    /// `x W + b` for `[tokens, d_in]`.
    pub fn linear(&self, input: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        self.with_parts(input, LinearParts { bias, ..LinearParts::default() })
    }

    /// `x W` with what a layer computes beside it, for `[tokens, d_in]`.
    pub fn with_parts(&self, input: Tensor<2>, mut parts: LinearParts) -> Tensor<2> {
        match self {
            Self::Dense(weight) => {
                let product = linear(input.clone(), weight.clone(), parts.bias.take());
                parts.over(product, input)
            }
            Self::Packed(weight) => weight.linear(input, parts),
        }
    }

    /// The mean cross-entropy `[1]` of classes `[n]`, of which `x W + b` are the logits, for
    /// `[n, d_in]`. On the CPU in f32 there are never more than some rows of these.
    pub fn cross_entropy(
        &self,
        input: Tensor<2>,
        bias: Option<Tensor<1>>,
        classes: Tensor<1, Int>,
    ) -> Tensor<1> {
        match self {
            Self::Dense(weight) => cross_entropy_of_product(input, weight.clone(), bias, classes),
            Self::Packed(weight) => weight.cross_entropy(input, bias, classes),
        }
    }

    /// The rows with these indices: `[n]` to `[n, d]`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.clone().select(0, indices),
            Self::Packed(weight) => weight.rows(indices),
        }
    }
}

impl From<Tensor<2>> for FrozenWeight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(weight)
    }
}
