//! A T5.

use peft_core::TensorMap;
use serde_json::{Value, json};

use super::random::Random;
use super::{HIDDEN, INNER, POSITIONS, VOCABULARY};

const ENCODER_LAYERS: usize = 1;
const DECODER_LAYERS: usize = 2;
const HEADS: usize = 3;
/// Heads are together wider than the hidden states.
const HEAD: usize = 10;
const BUCKETS: usize = 8;

pub(super) fn fields(dropout: f64) -> Value {
    json!({
        "model_type": "t5",
        "d_model": HIDDEN,
        "num_layers": ENCODER_LAYERS,
        "num_decoder_layers": DECODER_LAYERS,
        "num_heads": HEADS,
        "d_kv": HEAD,
        "d_ff": INNER,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": BUCKETS,
        "relative_attention_max_distance": 9,
        "vocab_size": VOCABULARY,
        "n_positions": POSITIONS,
        "dropout_rate": dropout,
    })
}

pub(super) fn tensors() -> TensorMap {
    let mut random = Random::new();
    random.table("shared", [VOCABULARY, HIDDEN]);
    stack(&mut random, "encoder", ENCODER_LAYERS, &["SelfAttention"]);
    stack(&mut random, "decoder", DECODER_LAYERS, &["SelfAttention", "EncDecAttention"]);
    random.into_tensors()
}

fn stack(random: &mut Random, side: &str, layers: usize, attentions: &[&str]) {
    let first = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias");
    random.table(&first, [BUCKETS, HEADS]);
    for block in 0..layers {
        let path = |layer: usize, rest: &str| format!("{side}.block.{block}.layer.{layer}.{rest}");
        for (layer, attention) in attentions.iter().enumerate() {
            // Scores are not scaled, so queries are.
            let query = path(layer, &format!("{attention}.q"));
            random.small(&query, [HIDDEN, HEADS * HEAD], 1.0 / (HEAD as f32).sqrt());
            for part in ["k", "v"] {
                let path = path(layer, &format!("{attention}.{part}"));
                random.unbiased(&path, [HIDDEN, HEADS * HEAD]);
            }
            random.unbiased(&path(layer, &format!("{attention}.o")), [HEADS * HEAD, HIDDEN]);
            random.rms_norm(&path(layer, "layer_norm"));
        }
        let last = attentions.len();
        random.unbiased(&path(last, "DenseReluDense.wi_0"), [HIDDEN, INNER]);
        random.unbiased(&path(last, "DenseReluDense.wi_1"), [HIDDEN, INNER]);
        random.unbiased(&path(last, "DenseReluDense.wo"), [INNER, HIDDEN]);
        random.rms_norm(&path(last, "layer_norm"));
    }
    random.rms_norm(&format!("{side}.final_layer_norm"));
}
