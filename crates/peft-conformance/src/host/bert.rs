//! A BERT classifier.

use peft_core::TensorMap;
use serde_json::{Value, json};

use super::random::Random;
use super::{HIDDEN, INNER, LABELS, POSITIONS, VOCABULARY};

const LAYERS: usize = 2;

pub(super) fn fields(dropout: f64) -> Value {
    json!({
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    })
}

pub(super) fn tensors() -> TensorMap {
    let mut random = Random::new();
    let entries = [("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)];
    for (name, entries) in entries {
        random.table(&format!("bert.embeddings.{name}_embeddings"), [entries, HIDDEN]);
    }
    random.norm("bert.embeddings.LayerNorm");
    for layer in 0..LAYERS {
        let path = |rest: &str| format!("bert.encoder.layer.{layer}.{rest}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            random.linear(&path(&format!("attention.{name}")), [HIDDEN, HIDDEN]);
        }
        random.norm(&path("attention.output.LayerNorm"));
        random.linear(&path("intermediate.dense"), [HIDDEN, INNER]);
        random.linear(&path("output.dense"), [INNER, HIDDEN]);
        random.norm(&path("output.LayerNorm"));
    }
    random.linear("bert.pooler.dense", [HIDDEN, HIDDEN]);
    random.linear("classifier", [HIDDEN, LABELS]);
    random.into_tensors()
}
