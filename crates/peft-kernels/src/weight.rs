//! Frozen matrices that are no tensors.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::{LinearParts, cross_entropy};

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

    /// [`cross_entropy`] of the logits `x W + b`.
    ///
    /// # Panics
    /// As [`cross_entropy`].
    fn cross_entropy(
        &self,
        input: Tensor<2>,
        bias: Option<Tensor<1>>,
        classes: Tensor<1, Int>,
    ) -> Tensor<1> {
        cross_entropy(self.linear(input, LinearParts { bias, ..LinearParts::default() }), classes)
    }

    /// The rows with these indices: `[n]` to `[n, d]`.
    ///
    /// # Panics
    /// If there is no such row.
    fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2>;
}

/// The type that a frozen matrix is laid out in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Element {
    /// f32.
    #[default]
    F32,
    /// bf16: products round what they multiply to 8 binary digits, and add in f32. Fast where the
    /// processor has AVX-512 BF16.
    Bf16,
}

impl Element {
    /// The bytes of a number.
    pub fn num_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A frozen matrix `[rows, columns]`, or with `transposed` that matrix transposed, laid out for
/// products on this device; `None` where a tensor is as good.
///
/// # Panics
/// If there are not as many values.
pub fn laid_out(
    values: &[f32],
    shape: [usize; 2],
    transposed: bool,
    element: Element,
    device: &Device,
) -> Option<Arc<dyn PackedWeight>> {
    #[cfg(feature = "flex")]
    if crate::PrepackedMatrix::is_supported(device) {
        let of = if transposed {
            crate::PrepackedMatrix::transposed
        } else {
            crate::PrepackedMatrix::new
        };
        return Some(Arc::new(of(values, shape, element, device)));
    }
    let _ = (values, shape, transposed, element, device);
    None
}
