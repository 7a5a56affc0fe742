//! A training step of a language model.

use anyhow::Result;
use serde_json::json;

use super::Named;
use super::step::all_linear;
use crate::bench::compare::case::{Bar, Case, Figure, Read};
use crate::bench::compare::setup::{Setup, with};

/// The cases.
pub const CASES: [Named; 2] = [
    ("causal/lora", |setup| case(setup, "causal/lora", "f32", 0.5)),
    ("causal/bf16", |setup| case(setup, "causal/bf16", "bf16", 0.65)),
];

fn case(setup: &Setup, name: &str, dtype: &str, bar: f64) -> Result<Case> {
    let (rows, tokens) = (8, 512);
    // One step is long; more than one after the first would tell nothing new.
    let steps = crate::bench::compare::WARM_UP + if setup.quick() { 1 } else { 2 };
    let order = json!({
        "model": setup.language_model()?, "method": "lora", "settings": all_linear(),
        "rows": rows, "tokens": tokens, "dtype": dtype, "steps": steps,
    });
    let peer = with(&order, json!({"library": "peft", "causal": true}));
    let sides = vec![setup.ours(order), setup.torch("peft", peer)?];
    let figures = vec![
        Figure::of("step, s", Read::step(), 1, Some(Bar::AtMost(bar))),
        Figure::of("peak memory, MB", Read::Peak, 1, Some(Bar::AtMost(0.4))),
        Figure::of("trained values", Read::Value("/trainable"), 1, None),
    ];
    let about = format!(
        "SmolLM2-135M in f32, {rows} texts of {tokens} tokens, each of which is learned; LoRA of rank 16 \
         on all linear layers; {dtype}."
    );
    Ok(Case { name: name.into(), about, sides, figures, versions: None })
}
