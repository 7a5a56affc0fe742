//! Outputs and metrics of a model under a method.

use burn::tensor::Tensor;
use peft_core::Hooks;
use peft_models::Encoder;

use crate::Result;
use crate::data::{Labels, Target, TokenizedSet};
use crate::loss::loss;
use crate::metrics::{Metrics, Output};

/// The outputs for every example, in the order of the data set. `hooks` must be without autodiff
/// (`method.valid()`).
///
/// # Errors
/// If an input does not fit the model.
pub fn predict(
    model: &Encoder,
    hooks: &dyn Hooks,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Vec<Output>> {
    let mut outputs = vec![Output { logits: Vec::new() }; data.len()];
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, model.base().device())?;
        let logits = model.infer(&batch.input, hooks)?;
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
    model: &Encoder,
    hooks: &dyn Hooks,
    data: &TokenizedSet,
    labels: &Labels,
    batch_size: usize,
) -> Result<Metrics> {
    let mut outputs = Vec::with_capacity(data.len());
    let mut targets: Vec<Target> = Vec::with_capacity(data.len());
    let mut total = 0.0;
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, model.base().device())?;
        let logits = model.infer(&batch.input, hooks)?;
        let mean = loss(labels.goal, logits.clone(), &batch).into_scalar::<f32>();
        total += f64::from(mean) * indices.len() as f64;
        outputs.extend(rows(logits).into_iter().map(|logits| Output { logits }));
        targets.extend(batch.targets);
    }
    Ok(Metrics::new(labels, &outputs, &targets, total / data.len().max(1) as f64))
}

/// The rows of `[batch, 1, labels]` logits.
fn rows(logits: Tensor<3>) -> Vec<Vec<f32>> {
    let [_, _, labels] = logits.dims();
    let values: Vec<f32> =
        logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    values.chunks(labels).map(<[f32]>::to_vec).collect()
}
