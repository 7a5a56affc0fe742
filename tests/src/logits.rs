//! Logits of an adapter over a base, against those that the reference computed.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use peft_core::{Hooks, Slots, TensorMap};
use peft_format::{Registry, merged_tensors};
use peft_models::{Forward, Model, ModelInput};

use crate::case::{Case, Outcome, held_twice, input, values};

/// Runs a case: the base's logits, the adapter's, and those of the merged model.
pub fn run(case: &Case, registry: &Registry, device: &Device, tolerance: f32) -> Outcome {
    compare(case, registry, device, tolerance).unwrap_or_else(|outcome| outcome)
}

fn compare(
    case: &Case,
    registry: &Registry,
    device: &Device,
    tolerance: f32,
) -> Result<Outcome, Outcome> {
    let model = case.base(device)?;
    let recorded = case.tensors("io.safetensors")?;
    let check = |what: &str, model: &Model, hooks: &dyn Hooks| {
        let name = match what {
            "adapted" => "logits",
            "merged" => "merged_logits",
            _ if recorded.contains_key("base_logits") => "base_logits",
            _ => "logits",
        };
        let input = input(&recorded, device)?;
        let [texts, _] = input.shape();
        let (times, slots) = match what {
            // Each row in its task, or side by side, as the case has it.
            "adapted" => case.slots(texts, tasks(&recorded).as_deref())?,
            _ => (1, Slots::default()),
        };
        let how = Forward::infer(hooks).with_slots(&slots);
        let distance = distance(name, &recorded, model, &input.repeated(times), how)?;
        let shown = format!("{what} {distance:.1e}");
        if distance > tolerance || distance.is_nan() {
            return Err(Outcome::Failed(format!("{shown}, tolerance {tolerance:.0e}")));
        }
        Ok(shown)
    };
    let mut results = vec![check("base", &model, &())?];
    if !case.name.starts_with("bases/") {
        let (adapter, trainable) = case.composed(registry, &model, device)?;
        results.push(check("adapted", &model, &adapter.method.valid())?);
        let twice = held_twice(adapter.parts().1, model.base());
        match case.trainable {
            Some(expected) if expected == trainable + twice && twice > 0 => {
                results.push(format!("{twice} values are counted twice by the reference"));
            }
            Some(expected) if expected != trainable => {
                let counts = format!("{trainable} values trained, the reference counts {expected}");
                return Err(Outcome::Failed(counts));
            }
            _ => {}
        }
        if recorded.contains_key("merged_logits") {
            let failed = |e: &dyn std::fmt::Display| Outcome::Failed(e.to_string());
            let merged = merged_tensors(&adapter, model.base()).map_err(|e| failed(&e))?;
            let merged = model.with_tensors(merged).map_err(|e| failed(&e))?;
            results.push(check("merged", &merged, &())?);
        }
    }
    Ok(Outcome::Passed(results.join(", ")))
}

/// The largest distance between what the model computes and what was recorded, where there are
/// tokens.
fn distance(
    name: &str,
    recorded: &TensorMap,
    model: &Model,
    input: &ModelInput,
    how: Forward<'_>,
) -> Result<f32, Outcome> {
    let failed = |e: String| Outcome::Failed(e);
    let expected = recorded.get(name).ok_or_else(|| failed(format!("no {name}")))?.clone();
    let output = model.forward(input, how).map_err(|error| failed(error.to_string()))?;
    let [batch, rows, labels] = output.dims();
    let texts = recorded.get("input_ids").map_or(batch, |ids| ids.shape()[0]);
    let is_token = token_rows(recorded, [texts, rows]).repeat(batch / texts);
    let count = expected.shape().num_elements();
    if count == 0 || count != batch * rows * labels {
        let shape = expected.shape();
        return Err(failed(format!("{name} has shape {shape:?}, ours {:?}", output.dims())));
    }
    let found = values(Tensor::into_data(output));
    let pairs = found.into_iter().zip(values(expected)).enumerate();
    let at_tokens = pairs.filter(|(i, _)| is_token[i / labels]);
    Ok(at_tokens.fold(0.0, |far: f32, (_, (a, b))| {
        // A NaN must not get lost in a maximum.
        if (a - b).is_nan() { f32::NAN } else { far.max((a - b).abs()) }
    }))
}

/// The task of each row, where rows have tasks.
pub(crate) fn tasks(recorded: &TensorMap) -> Option<Vec<usize>> {
    let tasks = values(recorded.get("task_ids")?.clone());
    Some(tasks.into_iter().map(|task| task as usize).collect())
}

/// Which of a batch's rows of logits are those of tokens: all but those of padding.
pub(crate) fn token_rows(recorded: &TensorMap, [batch, rows]: [usize; 2]) -> Vec<bool> {
    let name = match recorded.contains_key("decoder_input_ids") {
        true => "decoder_attention_mask",
        false => "attention_mask",
    };
    let Some(mask) = recorded.get(name).filter(|_| rows > 1) else {
        return vec![true; batch * rows];
    };
    // Virtual tokens have logits too, before those of the text.
    let text = values(mask.clone());
    let tokens = text.len() / batch;
    let row = |text: &[f32]| {
        let text = text.iter().map(|mask| *mask != 0.0);
        std::iter::repeat_n(true, rows - tokens).chain(text).collect::<Vec<_>>()
    };
    text.chunks(tokens).flat_map(row).collect()
}
