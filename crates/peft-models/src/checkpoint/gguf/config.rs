//! `config.json` of the model in a GGUF file.

use burn::tensor::TensorData;
use serde_json::{Map, Value, json};

use super::Gguf;
use super::names::{Naming, ROPE_FREQS};
use crate::{Error, Result};

/// The fields that `config.json` would have, as Hugging Face names them.
///
/// # Errors
/// If the file lacks one that cannot be done without, or asks for something not supported.
pub(crate) fn config_fields(mut gguf: Gguf) -> Result<Map<String, Value>> {
    let naming = Naming::of(&gguf)?;
    let mut fields = Map::new();
    fields.insert("architectures".into(), json!([naming.class]));
    fields.insert("model_type".into(), naming.architecture.into());
    let rest = if naming.architecture == "gpt2" { gpt2(&gguf)? } else { llama(&mut gguf, naming)? };
    fields.extend(rest);
    let embedding = gguf.tensors().get("token_embd.weight");
    let vocab_size = embedding.and_then(|info| info.shape.first());
    let vocab_size =
        vocab_size.ok_or_else(|| Error::file(gguf.path(), "it has no tensor token_embd.weight"))?;
    fields.insert("vocab_size".into(), json!(vocab_size));
    let tied = !gguf.tensors().contains_key("output.weight");
    fields.insert("tie_word_embeddings".into(), tied.into());
    for (name, field) in [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")] {
        if let Some(id) = gguf.get::<u32>(&format!("tokenizer.ggml.{name}_token_id"))? {
            fields.insert(format!("{field}_token_id"), id.into());
        }
    }
    Ok(fields)
}

/// Llama, and Qwen2, which is one with biases.
fn llama(gguf: &mut Gguf, naming: &Naming) -> Result<Map<String, Value>> {
    let key = |name: &str| format!("{}.{name}", naming.architecture);
    let number = |name: &str| gguf.require::<usize>(&key(name));
    if let Some(experts) = gguf.get::<usize>(&key("expert_count"))?.filter(|count| *count > 0) {
        return Err(gguf.unsupported(key("expert_count"), experts, "0"));
    }
    let (width, heads) = (number("embedding_length")?, number("attention.head_count")?);
    let said = gguf.get::<usize>(&key("attention.key_length"))?;
    let rotated = gguf.get::<usize>(&key("rope.dimension_count"))?;
    let head_dim = said.or_else(|| width.checked_div(heads)).unwrap_or_default();
    if let Some(rotated) = rotated.filter(|rotated| *rotated != head_dim) {
        let supported = format!("{head_dim}, the width of a head");
        return Err(gguf.unsupported(key("rope.dimension_count"), rotated, supported));
    }
    let theta = gguf.get::<f64>(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let mut fields = Map::from_iter([
        ("hidden_size".into(), json!(width)),
        ("intermediate_size".into(), json!(number("feed_forward_length")?)),
        ("num_hidden_layers".into(), json!(number("block_count")?)),
        ("num_attention_heads".into(), json!(heads)),
        (
            "num_key_value_heads".into(),
            json!(gguf.get::<usize>(&key("attention.head_count_kv"))?.unwrap_or(heads)),
        ),
        ("hidden_act".into(), "silu".into()),
        ("max_position_embeddings".into(), json!(number("context_length")?)),
        (
            "rms_norm_eps".into(),
            json!(gguf.require::<f64>(&key("attention.layer_norm_rms_epsilon"))?),
        ),
        ("rope_theta".into(), json!(theta)),
    ]);
    if let Some(head_dim) = said.or(rotated) {
        fields.insert("head_dim".into(), json!(head_dim));
    }
    // Qwen2 has biases without saying so.
    if naming.architecture == "llama" && gguf.tensors().contains_key("blk.0.attn_q.bias") {
        fields.insert("attention_bias".into(), true.into());
    }
    let scaling = match scaling(gguf, &key("rope.scaling"))? {
        None if gguf.tensors().contains_key(ROPE_FREQS) => {
            let factors = gguf.read(ROPE_FREQS)?.values();
            llama3_scaling(gguf, theta, &factors)?
        }
        scaling => scaling,
    };
    if let Some(scaling) = scaling {
        fields.insert("rope_scaling".into(), scaling);
    }
    Ok(fields)
}

fn gpt2(gguf: &Gguf) -> Result<Map<String, Value>> {
    let number = |name: &str| gguf.require::<usize>(&format!("gpt2.{name}"));
    let positions = number("context_length")?;
    Ok(Map::from_iter([
        ("n_embd".into(), json!(number("embedding_length")?)),
        ("n_inner".into(), json!(number("feed_forward_length")?)),
        ("n_layer".into(), json!(number("block_count")?)),
        ("n_head".into(), json!(number("attention.head_count")?)),
        ("n_positions".into(), json!(positions)),
        ("n_ctx".into(), json!(positions)),
        ("activation_function".into(), "gelu_new".into()),
        (
            "layer_norm_epsilon".into(),
            json!(gguf.require::<f64>("gpt2.attention.layer_norm_epsilon")?),
        ),
    ]))
}

/// How positions are scaled, where the metadata says so.
fn scaling(gguf: &Gguf, key: &str) -> Result<Option<Value>> {
    let kind = gguf.get::<&str>(&format!("{key}.type"))?;
    let factor = || gguf.require::<f64>(&format!("{key}.factor"));
    Ok(match kind {
        None | Some("none") => None,
        Some("linear") => Some(json!({"rope_type": "linear", "factor": factor()?})),
        Some("yarn") => Some(json!({
            "rope_type": "yarn",
            "factor": factor()?,
            "original_max_position_embeddings":
                gguf.require::<usize>(&format!("{key}.original_context_length"))?,
        })),
        Some(other) => {
            return Err(gguf.unsupported(format!("{key}.type"), other, "none, linear, yarn"));
        }
    })
}

/// Llama 3's scaling, of which a GGUF file has only the result: what each frequency is divided by.
/// All models that have it were made with the same three constants beside the largest factor, so
/// these are tried, and must give the same factors.
fn llama3_scaling(gguf: &Gguf, theta: f64, factors: &TensorData) -> Result<Option<Value>> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const POSITIONS: f64 = 8192.0;
    let found: Vec<f64> = factors.iter::<f64>().collect();
    let largest = found.iter().copied().fold(1.0, f64::max);
    if found.iter().all(|factor| *factor == 1.0) {
        return Ok(None);
    }
    let width = 2.0 * found.len() as f64;
    let expected = (0..found.len()).map(|i| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / width);
        let between = (POSITIONS / wavelength - LOW) / (HIGH - LOW);
        let share = between.clamp(0.0, 1.0);
        1.0 / ((1.0 - share) / largest + share)
    });
    if found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * b) {
        return Ok(Some(json!({
            "rope_type": "llama3",
            "factor": largest,
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": POSITIONS as usize,
        })));
    }
    let range = format!("factors up to {largest}");
    Err(gguf.unsupported(ROPE_FREQS, range, "those of Llama 3 (original context 8192)"))
}
