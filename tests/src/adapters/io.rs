//! What goes into a model and what comes out, beside an adapter.

use std::path::Path;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::TensorData;
use peft_core::{Hooks, TensorMap, merge_obstacle};
use peft_format::{Adapter, merged_tensors, read_safetensors};
use peft_models::{Model, ModelConfig, ModelInput, Task};

const INPUTS: [&str; 4] =
    ["input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"];

/// The recorded inputs of a fixture; of another base, two texts of made-up tokens, one of them
/// filled up.
pub fn inputs(model: &Path, config: &ModelConfig) -> Result<TensorMap> {
    let recorded = model.join("io.safetensors");
    if recorded.is_file() {
        let mut tensors = read_safetensors(&recorded)?;
        tensors.retain(|name, _| INPUTS.contains(&name.as_str()));
        return Ok(tensors);
    }
    let (vocabulary, pad) = (config.vocab_size as i64, config.pad_token_id() as i64);
    let [rows, tokens, short] = [2, 12, 7];
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for (row, token) in (0..rows).flat_map(|row| (0..tokens).map(move |token| (row, token))) {
        let is_token = row == 0 || token < short;
        // Past the special tokens, which come first.
        let id = 5 + (1 + row * tokens + token) * 7919 % (vocabulary - 5);
        ids.push(if is_token { id } else { pad });
        mask.push(i64::from(is_token));
    }
    let shape = [rows as usize, tokens as usize];
    Ok(TensorMap::from([
        ("input_ids".into(), TensorData::new(ids, shape)),
        ("attention_mask".into(), TensorData::new(mask, shape)),
    ]))
}

/// The same texts with their padding behind them.
///
/// # Errors
/// If the inputs are no integers.
pub fn padded_behind(inputs: &TensorMap) -> Result<TensorMap> {
    let mut moved = inputs.clone();
    let Some(mask) = inputs.get("attention_mask") else { return Ok(moved) };
    let [_, tokens] = mask.shape().dims();
    let mask: Vec<i64> = mask.clone().convert::<i64>().try_into_vec()?;
    for name in ["input_ids", "attention_mask"] {
        let values = inputs.get(name).with_context(|| format!("no {name}"))?;
        let shape = values.shape();
        let mut values: Vec<i64> = values.clone().convert::<i64>().try_into_vec()?;
        for (row, mask) in values.chunks_mut(tokens).zip(mask.chunks(tokens)) {
            row.rotate_left(mask.iter().take_while(|is_token| **is_token == 0).count());
        }
        moved.insert(name.into(), TensorData::new(values, shape));
    }
    Ok(moved)
}

/// The inputs, `logits` under the adapter, and `merged_logits` where it can be merged.
pub fn io(encoder: &Model, adapter: &Adapter, inputs: &TensorMap) -> Result<TensorMap> {
    let mut io = inputs.clone();
    io.insert("logits".into(), output(encoder, inputs, &adapter.method.valid())?);
    if merge_obstacle(&adapter.method, encoder.base()).is_none() {
        let merged = encoder.with_tensors(merged_tensors(adapter, encoder.base())?)?;
        io.insert("merged_logits".into(), output(&merged, inputs, &())?);
    }
    Ok(io)
}

/// The output as the reference lays it out: `[batch, labels]` of a sequence.
fn output(model: &Model, inputs: &TensorMap, hooks: &dyn Hooks) -> Result<TensorData> {
    let text = |prefix: &str| {
        let ids = inputs.get(&format!("{prefix}input_ids")).context("no input_ids")?.clone();
        let mask = inputs.get(&format!("{prefix}attention_mask")).cloned();
        Ok::<_, anyhow::Error>(ModelInput::from_data(ids, mask, None, model.base().device())?)
    };
    let input = match inputs.contains_key("decoder_input_ids") {
        true => text("")?.with_decoder(text("decoder_")?)?,
        false => text("")?,
    };
    let output = model.infer(&input, hooks)?;
    Ok(match model.task() {
        Task::ClassifySequence { .. } => output.squeeze_dim::<2>(1).into_data(),
        _ => output.into_data(),
    })
}
