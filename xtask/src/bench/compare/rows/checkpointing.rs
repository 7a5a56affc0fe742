//! Our own training step with gradient checkpointing, beside that without.

use serde_json::{Value, json};

use super::Named;
use super::step::{all_linear, query_value};
use crate::bench::compare::case::{Bar, Case, Figure, Read};
use crate::bench::compare::setup::{Setup, with};

/// The cases.
pub const CASES: [Named; 2] = [
    ("checkpointing/encoder", |setup| {
        let order = json!({
            "model": setup.encoder()?, "method": "lora", "settings": query_value(),
            "rows": 32, "tokens": 128, "steps": setup.steps(),
        });
        let about =
            "The encoder of `step/lora`, 32 x 128 tokens, LoRA of rank 8 on query and value";
        Ok(case(setup, "checkpointing/encoder", about, &order))
    }),
    ("checkpointing/causal", |setup| {
        let steps = crate::bench::compare::WARM_UP + if setup.quick() { 1 } else { 2 };
        let order = json!({
            "model": setup.packed_language_model()?, "method": "lora", "settings": all_linear(),
            "rows": 8, "tokens": 512, "steps": steps,
        });
        let about = "SmolLM2-135M as its GGUF file has it, 8 x 512 tokens, LoRA of rank 16 on all linear \
                     layers";
        Ok(case(setup, "checkpointing/causal", about, &order))
    }),
];

fn case(setup: &Setup, name: &str, about: &str, order: &Value) -> Case {
    let with_it = with(order, json!({"train": {"gradient_checkpointing": true}}));
    let mut sides = vec![setup.ours(with_it), setup.ours(order.clone())];
    sides[1].name = "without".into();
    let figures = vec![
        Figure::of("step, s", Read::step(), 1, Some(Bar::AtMost(1.35))),
        Figure::of("peak memory, MB", Read::Peak, 1, Some(Bar::AtMost(0.6))),
    ];
    let about = format!("{about}; layers run again in the backward pass, and not.");
    let versions = Some("no peer".into());
    Case { name: name.into(), about, sides, figures, versions }
}
