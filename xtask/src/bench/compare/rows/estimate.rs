//! What `peft estimate` expects of a training step, beside what the step takes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Named;
use super::step::{all_linear, query_value};
use crate::bench::compare::case::{Case, Figure, Read, Side};
use crate::bench::compare::setup::Setup;

/// The cases.
pub const CASES: [Named; 10] = [
    ("estimate/lora", |s| encoder(s, "estimate/lora", "lora", query_value(), [32, 128], false)),
    ("estimate/lora-checkpointing", |s| {
        encoder(s, "estimate/lora-checkpointing", "lora", query_value(), [32, 128], true)
    }),
    ("estimate/prefix", |s| {
        let settings = json!({"num_virtual_tokens": 20});
        encoder(s, "estimate/prefix", "prefix", settings, [32, 128], false)
    }),
    ("estimate/ia3", |s| encoder(s, "estimate/ia3", "ia3", json!({}), [16, 256], false)),
    ("estimate/pfeiffer", |s| {
        encoder(s, "estimate/pfeiffer", "pfeiffer", json!({}), [32, 128], false)
    }),
    ("estimate/houlsby-checkpointing", |s| {
        let name = "estimate/houlsby-checkpointing";
        encoder(s, name, "houlsby", json!({}), [16, 128], true)
    }),
    ("estimate/unipelt", |s| {
        encoder(s, "estimate/unipelt", "unipelt", json!({}), [16, 128], false)
    }),
    ("estimate/bitfit", |s| encoder(s, "estimate/bitfit", "bitfit", json!({}), [8, 512], false)),
    ("estimate/causal", |s| causal(s, "estimate/causal", [2, 256], false)),
    ("estimate/causal-checkpointing", |s| {
        causal(s, "estimate/causal-checkpointing", [4, 256], true)
    }),
];

fn encoder(
    setup: &Setup,
    name: &str,
    method: &'static str,
    settings: Value,
    sizes: [usize; 2],
    checkpointing: bool,
) -> Result<Case> {
    let step = Step { model: setup.encoder()?, method, settings, sizes, checkpointing };
    Ok(case(setup, name, "The encoder of `step/lora`", "classify", &step))
}

fn causal(setup: &Setup, name: &str, sizes: [usize; 2], checkpointing: bool) -> Result<Case> {
    let (model, settings) = (setup.packed_language_model()?, all_linear());
    let step = Step { model, method: "lora", settings, sizes, checkpointing };
    Ok(case(setup, name, "SmolLM2-135M as its GGUF file has it", "clm", &step))
}

struct Step {
    model: PathBuf,
    method: &'static str,
    settings: Value,
    /// Texts, and tokens of each.
    sizes: [usize; 2],
    checkpointing: bool,
}

fn case(setup: &Setup, name: &str, model: &str, task: &'static str, step: &Step) -> Case {
    let [rows, tokens] = step.sizes;
    let mut train = Map::new();
    train.insert("gradient_checkpointing".into(), json!(step.checkpointing));
    let order = json!({
        "model": step.model, "method": step.method, "settings": step.settings, "rows": rows,
        "tokens": tokens, "steps": setup.steps(), "train": train, "dtype": "stored",
    });
    let sides = vec![estimated(setup, task, step), setup.ours(order)];
    let figure = |name: &str, estimated: &'static str, measured: Read| Figure {
        name: name.into(),
        side: 0,
        read: Read::Value(estimated),
        against: Some((1, measured)),
        against_name: Some("measured".into()),
        bar: None,
    };
    let figures = vec![
        figure("peak memory, bytes; within 15 %", "/peak_bytes", Read::PeakBytes),
        figure("step, s; within 25 %", "/seconds", Read::step()),
    ];
    let with = if step.checkpointing { ", with gradient checkpointing" } else { "" };
    let about = format!(
        "{model}, {rows} x {tokens} tokens, {}{with}: `peft estimate` beside a run.",
        step.method
    );
    let versions = Some("no peer".into());
    Case { name: name.into(), about, sides, figures, versions }
}

/// `peft estimate` of the same step.
fn estimated(setup: &Setup, task: &'static str, step: &Step) -> Side {
    let [rows, tokens] = step.sizes.map(|size| size.to_string());
    let program = setup.program("peft");
    let mut arguments: Vec<String> =
        ["estimate", "--json", "--method", step.method].map(Into::into).into();
    arguments.extend(["--task", task, "--batch-size", &rows, "--length", &tokens].map(Into::into));
    arguments.extend(["--model".into(), step.model.display().to_string()]);
    for (field, value) in step.settings.as_object().into_iter().flatten() {
        arguments.extend(["--set".into(), format!("{field}={value}")]);
    }
    if step.checkpointing {
        arguments.push("--gradient-checkpointing".into());
    }
    Side::new("estimate", move |_| {
        let mut command = Command::new(&program);
        command.args(&arguments);
        Ok(command)
    })
}
