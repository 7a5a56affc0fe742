//! Losses.

use burn::tensor::{Tensor, activation::log_softmax};
use peft_data::{Batch, Goal};

/// The mean loss of a batch, `[1]`, from logits `[targets, outputs]`: cross-entropy of labels and
/// words, binary cross-entropy over all labels where a text may have several, the mean squared error
/// of numbers.
pub(crate) fn loss(goal: Goal, logits: Tensor<2>, batch: &Batch) -> Tensor<1> {
    let [targets, _] = logits.dims();
    let device = logits.device().without_autodiff();
    match goal {
        Goal::Regress => (logits.reshape([targets]) - batch.values(&device)).square().mean(),
        Goal::MultiLabel => {
            let [_, labels] = logits.dims();
            let wanted = batch.indicators(labels, &device);
            // log(1 + exp(x)) - x y, stable for large x of either sign.
            let softplus = logits.clone().abs().neg().exp().log1p() + logits.clone().clamp_min(0.0);
            (softplus - logits * wanted).mean()
        }
        _ => {
            let classes = batch.classes(&device).reshape([targets, 1]);
            log_softmax(logits, 1).gather(1, classes).mean().neg()
        }
    }
}
