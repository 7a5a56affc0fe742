//! A Llama.

use peft_core::TensorMap;
use serde_json::{Value, json};

use super::random::Random;
use super::{HIDDEN, INNER, POSITIONS, VOCABULARY};

const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
/// Heads are together wider than the hidden states.
const HEAD: usize = 8;

pub(super) fn fields(dropout: f64) -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": false,
        "attention_dropout": dropout,
    })
}

pub(super) fn tensors() -> TensorMap {
    let mut random = Random::new();
    random.table("model.embed_tokens", [VOCABULARY, HIDDEN]);
    for layer in 0..LAYERS {
        let path = |rest: &str| format!("model.layers.{layer}.{rest}");
        random.rms_norm(&path("input_layernorm"));
        random.unbiased(&path("self_attn.q_proj"), [HIDDEN, HEADS * HEAD]);
        random.unbiased(&path("self_attn.k_proj"), [HIDDEN, KEY_HEADS * HEAD]);
        random.unbiased(&path("self_attn.v_proj"), [HIDDEN, KEY_HEADS * HEAD]);
        random.unbiased(&path("self_attn.o_proj"), [HEADS * HEAD, HIDDEN]);
        random.rms_norm(&path("post_attention_layernorm"));
        random.unbiased(&path("mlp.gate_proj"), [HIDDEN, INNER]);
        random.unbiased(&path("mlp.up_proj"), [HIDDEN, INNER]);
        random.unbiased(&path("mlp.down_proj"), [INNER, HIDDEN]);
    }
    random.rms_norm("model.norm");
    random.unbiased("lm_head", [HIDDEN, VOCABULARY]);
    random.into_tensors()
}
