//! Losses.

use burn::tensor::{Tensor, activation::log_softmax};
use peft_data::{Batch, Goal};

/// The mean loss of a batch, `[1]`, from logits `[targets, outputs]`: cross-entropy of labels and
/// words, the mean squared error of numbers.
pub(crate) fn loss(goal: Goal, logits: Tensor<2>, batch: &Batch) -> Tensor<1> {
    let [targets, _] = logits.dims();
    let device = logits.device().without_autodiff();
    match goal {
        Goal::Regress => (logits.reshape([targets]) - batch.values(&device)).square().mean(),
        _ => {
            let classes = batch.classes(&device).reshape([targets, 1]);
            log_softmax(logits, 1).gather(1, classes).mean().neg()
        }
    }
}
