//! Losses.

use burn::tensor::{Tensor, activation::log_softmax};

use crate::data::{Batch, Goal};

/// The mean loss of a batch, `[1]`, from logits `[batch, 1, labels]`: cross-entropy of labels, the
/// mean squared error of numbers.
pub(crate) fn loss(goal: Goal, logits: Tensor<3>, batch: &Batch) -> Tensor<1> {
    let [rows, _, labels] = logits.dims();
    let device = logits.device().without_autodiff();
    match goal {
        Goal::Classify => {
            let log_p = log_softmax(logits.reshape([rows, labels]), 1);
            log_p.gather(1, batch.classes(&device).reshape([rows, 1])).mean().neg()
        }
        Goal::Regress => (logits.reshape([rows]) - batch.values(&device)).square().mean(),
    }
}
