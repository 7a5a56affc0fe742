//! The loss of a choice among many.

#[cfg(feature = "flex")]
mod fast;
#[cfg(feature = "flex")]
mod of_product;

use burn::tensor::{Int, Tensor, activation::log_softmax, module::linear};

#[cfg(feature = "flex")]
use crate::PrepackedMatrix;
use crate::{LinearParts, PackedMatrix, PackedWeight};

/// The mean of `log Σ exp(z) - z_c` over rows `z` of logits `[n, classes]`, whose classes `c` are
/// `[n]`: `[1]`.
///
/// On the CPU in f32 nothing of the logits' size is made but their gradient: with the words of a
/// language as classes they are the largest tensor of a step.
///
/// # Panics
/// If there are not as many classes as rows, or there is no such class.
pub fn cross_entropy(logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    assert_eq!(classes.dims(), [rows], "a class for each row");
    #[cfg(feature = "flex")]
    if crate::fused::is_fast(&logits) {
        return fast::cross_entropy(logits, classes);
    }
    log_softmax(logits, 1).gather(1, classes.unsqueeze_dim(1)).mean().neg()
}

/// [`cross_entropy`] of the logits `x W + b` of rows `x`, `[n, d]`, with a frozen weight `[d,
/// classes]`.
///
/// On the CPU in f32 these are made of some rows at a time, and with them at once the gradient of `x`:
/// nothing of the size of all logits is made.
///
/// # Panics
/// As [`cross_entropy`].
pub fn cross_entropy_of_product(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    classes: Tensor<1, Int>,
) -> Tensor<1> {
    of_product(x, Weight::Tensor(weight), bias, classes)
}

/// What rows are multiplied with.
#[derive(Debug)]
pub(crate) enum Weight {
    Tensor(Tensor<2>),
    Packed(PackedMatrix),
    #[cfg(feature = "flex")]
    LaidOut(PrepackedMatrix),
}

/// [`cross_entropy_of_product`] with any frozen weight.
pub(crate) fn of_product(
    x: Tensor<2>,
    weight: Weight,
    bias: Option<Tensor<1>>,
    classes: Tensor<1, Int>,
) -> Tensor<1> {
    assert_eq!(classes.dims(), [x.dims()[0]], "a class for each row");
    #[cfg(feature = "flex")]
    if crate::fused::is_fast(&x) && weight.is_frozen() && bias.as_ref().is_none_or(is_frozen) {
        return of_product::cross_entropy(x, weight, bias, classes);
    }
    let logits = match weight {
        Weight::Tensor(weight) => linear(x, weight, bias),
        Weight::Packed(weight) => weight.linear(x, LinearParts { bias, ..Default::default() }),
        #[cfg(feature = "flex")]
        Weight::LaidOut(weight) => weight.linear(x, LinearParts { bias, ..Default::default() }),
    };
    cross_entropy(logits, classes)
}

#[cfg(feature = "flex")]
impl Weight {
    /// `[d, classes]`.
    fn dims(&self) -> [usize; 2] {
        match self {
            Self::Tensor(weight) => weight.dims(),
            Self::Packed(weight) => weight.dims(),
            Self::LaidOut(weight) => weight.dims(),
        }
    }

    /// Whether its products are f32 on the CPU, and nobody learns it.
    fn is_frozen(&self) -> bool {
        match self {
            Self::Tensor(weight) => is_frozen(weight),
            Self::Packed(_) | Self::LaidOut(_) => true,
        }
    }
}

#[cfg(feature = "flex")]
fn is_frozen<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::fused::is_fast(tensor) && !tensor.is_tracked()
}
