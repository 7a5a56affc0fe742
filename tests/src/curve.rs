//! A training run, step by step, against one that the reference recorded.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use peft::train::LearningRates;
use peft_core::{
    AdapterPool, BoxedMethod, LossContext, Method, Progress, Slots, Stack, StepContext, TensorMap,
};
use peft_format::{Adapter, Registry};
use peft_models::{Forward, Model};

use crate::case::{Case, Optimizer, Outcome, counted_as_trained, input, values};
use crate::logits::{tasks, token_rows};

const LOSS_TOLERANCE: f32 = 1e-3;
const LOGITS_TOLERANCE: f32 = 1e-2;

/// Runs a case: every loss, and the logits of the first batch at the end.
pub fn run(case: &Case, registry: &Registry, device: &Device) -> Outcome {
    train(case, registry, device).unwrap_or_else(|outcome| outcome)
}

fn train(case: &Case, registry: &Registry, device: &Device) -> Result<Outcome, Outcome> {
    let model = case.base(device)?;
    let load = |folder: &str| case.adapter(folder, registry, &model, &device.clone().autodiff());
    let recorded = case.tensors("curve.safetensors")?;
    let expected = recorded.get("losses").cloned().map(values).unwrap_or_default();
    if expected.is_empty() {
        return Err(Outcome::Failed("no losses".into()));
    }
    let tasks = tasks(&recorded).unwrap_or_default();
    let slots = Slots::new(tasks.into_iter().map(Some).collect());
    let mut method = match case.names.is_empty() {
        true => trained(case.start(registry, &model, &device.clone().autodiff())?, case, &model),
        // Each row is under the adapter of its task; the head of one is that of all.
        false => {
            let folders = case.names.iter().map(|name| format!("start/{name}"));
            let adapters = folders.map(|folder| load(&folder)).collect::<Result<Vec<_>, _>>()?;
            let head = adapters.first().and_then(|adapter| adapter.parts().0);
            let members = adapters.into_iter().map(|adapter| adapter.parts().1).collect();
            let pool = BoxedMethod::new(AdapterPool::new(members));
            Stack::new(head.map(BoxedMethod::frozen).into_iter().chain([pool]).collect())
        }
    };
    // As meta.json says of every curve.
    let Optimizer { epsilon, weight_decay, .. } = case.optimizer;
    let config = AdamWConfig::new().with_epsilon(epsilon).with_weight_decay(weight_decay);
    let mut optimizer = config.init();
    let rates = LearningRates::of(&method);
    let total = expected.len();
    let mut furthest = 0.0f32;
    for (step, expected) in expected.iter().enumerate() {
        let batch = batch(&recorded, step);
        let input = input(&batch, device)?;
        let logits = model
            .forward(&input, Forward::train(&method, 0, step as u64).with_slots(&slots))
            .map_err(|error| Outcome::Failed(error.to_string()))?;
        let loss = cross_entropy(logits.clone(), &batch["labels"]);
        let progress = Progress { step, total };
        let [rows, positions, width] = logits.dims();
        let made = || logits.clone().reshape([rows * positions, width]);
        let again = || Ok(made());
        let added = method
            .loss(&LossContext { progress, logits: &made, again: &again })
            .map_err(|error| Outcome::Failed(error.to_string()))?;
        let loss = added.into_iter().fold(loss, |loss, term| loss + term);
        let value = values(loss.clone().into_data())[0];
        let distance = (value - expected).abs();
        if distance.is_nan() || distance > LOSS_TOLERANCE {
            return Err(Outcome::Failed(format!("step {step}: loss {value}, recorded {expected}")));
        }
        furthest = furthest.max(distance);
        let mut gradients = GradientsParams::from_grads(loss.backward(), &method);
        let seen = copied(&method, &gradients);
        method.precondition(&mut gradients);
        method = optimizer.step(rates.at(5e-3), method, gradients);
        let progress = Progress { step: step + 1, total };
        method.after_step(&StepContext { progress, gradients: &seen });
    }
    let first = batch(&recorded, 0);
    let logits = model
        .forward(&input(&first, device)?, Forward::infer(&method.valid()).with_slots(&slots))
        .map_err(|error| Outcome::Failed(error.to_string()))?;
    let final_logits = recorded.get("final_logits").cloned().map(values).unwrap_or_default();
    let [rows, positions, width] = logits.dims();
    if final_logits.len() != rows * positions * width {
        let count = final_logits.len();
        return Err(Outcome::Failed(format!("{count} final logits, ours {:?}", logits.dims())));
    }
    let is_token = token_rows(&first, [rows, positions]);
    let pairs = values(logits.into_data()).into_iter().zip(final_logits).enumerate();
    let at_tokens = pairs.filter(|(i, _)| is_token[i / width]);
    let distance = at_tokens.fold(0.0f32, |far, (_, (a, b))| far.max((a - b).abs()));
    if distance.is_nan() || distance > LOGITS_TOLERANCE {
        return Err(Outcome::Failed(format!("final logits {distance:.1e} away")));
    }
    let steps = expected.len();
    Ok(Outcome::Passed(format!("{steps} losses {furthest:.1e}, final logits {distance:.1e}")))
}

/// What a case trains of an adapter: adapter-hub/adapters leaves the head out, unless told; the count
/// tells.
fn trained(adapter: Adapter, case: &Case, model: &Model) -> Stack {
    let (head, own) = adapter.parts();
    match head {
        Some(head) if case.trainable == Some(counted_as_trained(own.clone(), model.base())) => {
            Stack::new(vec![head.frozen(), own])
        }
        _ => adapter.method,
    }
}

/// Handles on the same gradients, for the method to look at when a step has used them up.
fn copied(method: &Stack, gradients: &GradientsParams) -> GradientsParams {
    struct Copy<'g>(&'g GradientsParams, GradientsParams);
    impl ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.register(param.id, gradient);
            }
        }
    }
    let mut copy = Copy(gradients, GradientsParams::new());
    method.visit(&mut copy);
    copy.1
}

/// Batch `step` of tensors stacked along a first axis of steps.
fn batch(recorded: &TensorMap, step: usize) -> TensorMap {
    let names = ["input_ids", "attention_mask", "labels"];
    names
        .into_iter()
        .filter_map(|name| {
            let all = recorded.get(name)?;
            let shape = all.shape()[1..].to_vec();
            let size = shape.iter().product::<usize>();
            let all: Vec<i64> = all.clone().convert::<i64>().try_into_vec().ok()?;
            let part = all[step * size..(step + 1) * size].to_vec();
            Some((name.to_string(), TensorData::new(part, shape)))
        })
        .collect()
}

/// The mean of `-log p(label)` over `[batch, 1, labels]` logits, or over those `[batch, tokens,
/// words]` of a language model, where a token's label is the next; virtual tokens stand before.
fn cross_entropy(logits: Tensor<3>, labels: &TensorData) -> Tensor<1> {
    let [batch, rows, count] = logits.dims();
    let device = logits.device().without_autodiff();
    let shape = labels.shape().to_vec();
    let tokens = shape.iter().product::<usize>() / batch;
    let labels: Vec<i64> = labels.clone().convert::<i64>().try_into_vec().expect("converted");
    let labels = TensorData::new(labels, [batch, tokens]);
    let labels = Tensor::<2, Int>::from_data(labels, &device);
    let (logits, labels) = match (shape.len(), rows - tokens) {
        (1, _) => (logits, labels),
        // Nothing stands before the first token, from which it could be predicted.
        (_, 0) => (logits.narrow(1, 0, tokens - 1), labels.narrow(1, 1, tokens - 1)),
        (_, added) => (logits.narrow(1, added - 1, tokens), labels),
    };
    let [_, predicted, _] = logits.dims();
    let log_p = log_softmax(logits.reshape([batch * predicted, count]), 1);
    let labels = labels.reshape([batch * predicted, 1]);
    // A negative label is that of padding.
    let known = labels.clone().greater_equal_elem(0).float();
    let log_p = log_p.gather(1, labels.clamp_min(0)) * known.clone();
    log_p.sum().neg() / known.sum()
}
