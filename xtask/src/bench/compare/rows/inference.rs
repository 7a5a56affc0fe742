//! What methods cost, beside the model alone.

use anyhow::Result;
use serde_json::json;

use super::Named;
use super::step::query_value;
use crate::bench::compare::case::{Bar, Case, Figure, Read};
use crate::bench::compare::setup::{Setup, with};

/// The cases.
pub const CASES: [Named; 3] =
    [("inference/methods", methods), ("switch/lora", switch), ("drop/pfeiffer", drop_half)];

fn methods(setup: &Setup) -> Result<Case> {
    let (rows, tokens) = (32, 128);
    let order = json!({
        "what": "infer", "model": setup.encoder()?, "settings": query_value(), "rows": rows,
        "tokens": tokens, "steps": if setup.quick() { 3 } else { 10 },
    });
    let within = |name: &str, read: &str, bar: f64| {
        Figure::within(name, read, "base", Some(Bar::AtMost(bar)))
    };
    let figures = vec![
        within("LoRA merged, s", "merged", 1.02),
        within("LoRA not merged, s", "lora", 1.06),
        within("Pfeiffer adapter, s", "pfeiffer", 1.10),
        within("prefix of 20, s", "prefix", 1.10),
    ];
    let about = format!(
        "The encoder of `step/lora`, {rows} x {tokens} tokens, LoRA of rank 8 on query and value; in one \
         process, in turns."
    );
    let (sides, versions) = (vec![setup.ours(order)], Some("no peer".into()));
    Ok(Case { name: "inference/methods".into(), about, sides, figures, versions })
}

fn switch(setup: &Setup) -> Result<Case> {
    let order = json!({
        "what": "switch", "model": setup.encoder()?, "settings": query_value(),
        "steps": if setup.quick() { 3 } else { 10 },
    });
    let bar = Some(Bar::AtMost(0.01));
    let figures = vec![Figure::within("loading an adapter, s", "adapter", "base", bar)];
    let about =
        "The encoder of `step/lora` and a LoRA of rank 8 on query and value with its head, read \
                 from files."
            .into();
    let (sides, versions) = (vec![setup.ours(order)], Some("no peer".into()));
    Ok(Case { name: "switch/lora".into(), about, sides, figures, versions })
}

fn drop_half(setup: &Setup) -> Result<Case> {
    let order = json!({
        "model": setup.encoder()?, "method": "pfeiffer", "rows": 32, "tokens": 128,
        "steps": setup.steps(),
    });
    let half = with(&order, json!({"settings": {"leave_out": [0, 1, 2]}}));
    let mut sides = vec![setup.ours(half), setup.ours(order)];
    sides[1].name = "all layers".into();
    let bar = Some(Bar::AtMost(0.75));
    let figures = vec![
        Figure::of("step, s", Read::step(), 1, bar),
        Figure::of("peak memory, MB", Read::Peak, 1, None),
    ];
    let about =
        "The encoder of `step/lora`, 32 x 128 tokens, Pfeiffer adapters in the upper three of six \
                 layers, and in all."
            .into();
    let versions = Some("no peer".into());
    Ok(Case { name: "drop/pfeiffer".into(), about, sides, figures, versions })
}
