//! From the start of the process to the end of the first step.

use anyhow::Result;
use serde_json::json;

use super::Named;
use super::step::query_value;
use crate::bench::compare::case::{Bar, Case, Figure, Read};
use crate::bench::compare::setup::{Setup, with};

/// The cases.
pub const CASES: [Named; 2] = [
    ("startup/small-batch", |setup| case(setup, "startup/small-batch", 1, 16)),
    ("startup/batch", |setup| case(setup, "startup/batch", 32, 128)),
];

fn case(setup: &Setup, name: &str, rows: usize, tokens: usize) -> Result<Case> {
    let order = json!({
        "model": setup.encoder()?, "method": "lora", "settings": query_value(), "rows": rows,
        "tokens": tokens, "steps": 1,
    });
    let peer = with(&order, json!({"library": "peft"}));
    let sides = vec![setup.ours(order), setup.torch("peft", peer)?];
    let bar = Some(Bar::AtMost(0.15));
    let figures = vec![
        Figure::of("to the end of the first step, s", Read::FirstStep, 1, bar),
        Figure::of("peak memory, MB", Read::Peak, 1, None),
    ];
    let about = format!(
        "The encoder of `step/lora`, {rows} x {tokens} tokens; LoRA of rank 8 on query and value."
    );
    Ok(Case { name: name.into(), about, sides, figures, versions: None })
}
