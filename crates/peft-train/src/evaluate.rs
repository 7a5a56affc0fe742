//! Outputs and metrics of a model under a method.

use burn::tensor::Tensor;
use peft_core::Hooks;
use peft_models::{Model, Pass};

use crate::data::{Goal, Labels, Target, TokenizedSet};
use crate::loss::loss;
use crate::metrics::{Metrics, Output};
use crate::{Error, Result};

/// What is random in data is the same in every evaluation.
const EVALUATION: u64 = 0;

/// The outputs for every example, in the order of the data set. `hooks` must be without autodiff
/// (`method.valid()`).
///
/// # Errors
/// If an input does not fit the model, or the task has no output for a text as a whole.
pub fn predict(
    model: &Model,
    hooks: &dyn Hooks,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Vec<Output>> {
    let mut outputs = vec![Output { logits: Vec::new() }; data.len()];
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        if batch.places.is_some() {
            let expected = "gives an output for words, not for a text: it can be evaluated only";
            return Err(Error::setting("task", "mlm", expected));
        }
        let logits = batch.logits(model, Pass::inference(hooks))?;
        for (row, index) in rows(logits).into_iter().zip(indices) {
            outputs[*index].logits = row;
        }
    }
    Ok(outputs)
}

/// The metrics of a labelled data set.
///
/// # Errors
/// As [`predict`].
pub fn evaluate(
    model: &Model,
    hooks: &dyn Hooks,
    data: &TokenizedSet,
    labels: &Labels,
    batch_size: usize,
) -> Result<Metrics> {
    if labels.goal == Goal::MaskedLm {
        return evaluate_words(model, hooks, data, batch_size);
    }
    let mut outputs = Vec::with_capacity(data.len());
    let mut targets: Vec<Target> = Vec::with_capacity(data.len());
    let mut total = 0.0;
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        let logits = batch.logits(model, Pass::inference(hooks))?;
        let mean = loss(labels.goal, logits.clone(), &batch).into_scalar::<f32>();
        total += f64::from(mean) * indices.len() as f64;
        outputs.extend(rows(logits).into_iter().map(|logits| Output { logits }));
        targets.extend(batch.targets);
    }
    Ok(Metrics::new(labels, &outputs, &targets, total / data.len().max(1) as f64))
}

/// The metrics of a language model over the words that it is asked for.
fn evaluate_words(
    model: &Model,
    hooks: &dyn Hooks,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Metrics> {
    let (mut words, mut right, mut total) = (0, 0, 0.0);
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        let logits = batch.logits(model, Pass::inference(hooks))?;
        let found = logits.clone().argmax(1).squeeze_dim::<1>(1);
        let wanted = batch.classes(&found.device());
        right += found.equal(wanted).int().sum().into_scalar::<i64>() as usize;
        let mean = loss(Goal::MaskedLm, logits, &batch).into_scalar::<f32>();
        total += f64::from(mean) * batch.targets.len() as f64;
        words += batch.targets.len();
    }
    Ok(Metrics::of_words(data.len(), words, right, total / words.max(1) as f64))
}

/// The rows of `[targets, labels]` logits.
fn rows(logits: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, labels] = logits.dims();
    let values: Vec<f32> =
        logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    values.chunks(labels).map(<[f32]>::to_vec).collect()
}
