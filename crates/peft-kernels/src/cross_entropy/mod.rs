//! The loss of a choice among many.

#[cfg(feature = "flex")]
mod fast;

use burn::tensor::{Int, Tensor, activation::log_softmax};

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
