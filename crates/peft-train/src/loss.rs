//! Losses.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use peft_data::{Batch, Goal};
use peft_models::Logits;

/// The mean loss of a batch, `[1]`, from logits `[targets, outputs]`: cross-entropy of labels and
/// words, binary cross-entropy over all labels where a text may have several, the mean squared error
/// of numbers, the mean cross-entropy of an answer's start and end.
pub(crate) fn loss(goal: Goal, logits: &Logits, batch: &Batch) -> Tensor<1> {
    let device = logits.device().without_autodiff();
    match goal {
        Goal::Regress => {
            let logits = logits.tensor();
            let [targets, _] = logits.dims();
            (logits.reshape([targets]) - batch.values(&device)).square().mean()
        }
        Goal::QuestionAnswering => {
            // By text, every token of it, as the two distributions are over these.
            let (log_odds, _) = by_text(logits.tensor(), batch);
            let [texts, _, _] = log_odds.dims();
            let spans = batch.spans(&device).reshape([texts, 1, 2]);
            log_softmax(log_odds, 1).gather(1, spans).mean().neg()
        }
        Goal::MultiLabel => {
            let logits = logits.tensor();
            let [_, labels] = logits.dims();
            let wanted = batch.indicators(labels, &device);
            // log(1 + exp(x)) - x y, stable for large x of either sign.
            let softplus = logits.clone().abs().neg().exp().log1p() + logits.clone().clamp_min(0.0);
            (softplus - logits * wanted).mean()
        }
        _ => logits.cross_entropy(batch.classes(&device)),
    }
}

/// What stands at padding: no probability is left of it.
const NOWHERE: f32 = -1e9;

/// Logits of the tokens of a batch, `[tokens, outputs]`, as `[texts, longest, outputs]`, and the
/// number of tokens of each text.
pub(crate) fn by_text(logits: Tensor<2>, batch: &Batch) -> (Tensor<3>, Vec<usize>) {
    let [_, outputs] = logits.dims();
    let mut lengths = vec![0; batch.indices.len()];
    for [text, _] in batch.places.iter().flatten() {
        lengths[*text] += 1;
    }
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let (mut places, mut is_padding, mut start) = (Vec::new(), Vec::new(), 0);
    for length in &lengths {
        for token in 0..longest {
            let is_token = token < *length;
            places.push(if is_token { (start + token) as i64 } else { 0 });
            is_padding.extend(vec![!is_token; outputs]);
        }
        start += length;
    }
    let device = logits.device().without_autodiff();
    let (texts, count) = (lengths.len(), places.len());
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device);
    let is_padding = TensorData::new(is_padding, [texts, longest, outputs]);
    let is_padding = Tensor::from_data(is_padding, &device);
    let logits = logits.select(0, places).reshape([texts, longest, outputs]);
    (logits.mask_fill(is_padding, NOWHERE), lengths)
}
