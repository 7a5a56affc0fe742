//! A GPT-2.

use peft_core::TensorMap;
use serde_json::{Value, json};

use super::random::Random;
use super::{HIDDEN, INNER, POSITIONS, VOCABULARY};

const LAYERS: usize = 2;

pub(super) fn fields(dropout: f64) -> Value {
    json!({
        "model_type": "gpt2",
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": 3,
        "n_inner": INNER,
        "n_positions": POSITIONS,
        "vocab_size": VOCABULARY,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "resid_pdrop": dropout,
    })
}

pub(super) fn tensors() -> TensorMap {
    let mut random = Random::new();
    random.table("transformer.wte", [VOCABULARY, HIDDEN]);
    random.table("transformer.wpe", [POSITIONS, HIDDEN]);
    for layer in 0..LAYERS {
        let path = |rest: &str| format!("transformer.h.{layer}.{rest}");
        random.norm(&path("ln_1"));
        random.conv1d(&path("attn.c_attn"), [HIDDEN, 3 * HIDDEN]);
        random.conv1d(&path("attn.c_proj"), [HIDDEN, HIDDEN]);
        random.norm(&path("ln_2"));
        random.conv1d(&path("mlp.c_fc"), [HIDDEN, INNER]);
        random.conv1d(&path("mlp.c_proj"), [INNER, HIDDEN]);
    }
    random.norm("transformer.ln_f");
    random.into_tensors()
}
