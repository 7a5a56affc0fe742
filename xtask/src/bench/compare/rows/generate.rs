//! Generation, beside llama.cpp.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Named;
use super::step::all_linear;
use crate::bench::compare::case::{Bar, Case, Figure, Read, Side};
use crate::bench::compare::setup::{Setup, with};

/// The cases.
pub const CASES: [Named; 2] = [
    ("generate/1-row", |setup| case(setup, "generate/1-row", 1)),
    ("generate/8-rows", |setup| case(setup, "generate/8-rows", 8)),
];

fn case(setup: &Setup, name: &str, rows: usize) -> Result<Case> {
    let (tokens, new_tokens) = (512, if setup.quick() { 32 } else { 128 });
    let folder = setup.packed_language_model()?;
    let order = json!({
        "what": "generate", "model": folder, "method": "", "rows": rows, "tokens": tokens,
        "new_tokens": new_tokens, "steps": if setup.quick() { 1 } else { 3 },
    });
    let lora = with(&order, json!({"method": "lora", "settings": all_linear()}));
    let adapter = setup.packed_language_adapter()?;
    let theirs = with(&order, json!({"model": gguf_in(&folder)?}));
    let theirs_with_lora = with(&theirs, json!({"lora": adapter}));
    let sides = vec![
        setup.ours(order),
        llama(setup, "llama.cpp", theirs)?,
        Side { name: "ours with LoRA".into(), ..setup.ours(lora) },
        llama(setup, "llama.cpp with LoRA", theirs_with_lora)?,
    ];
    let figure = |what: &str, quantity: &str, side: usize, against: usize, bar: f64| {
        let read = Read::Median(format!("/{quantity}"), 0);
        let bar = Some(Bar::AtLeast(bar));
        Figure { side, ..Figure::of(&format!("{what}, tokens/s"), read, against, bar) }
    };
    let figures = vec![
        figure("prompt", "prefill", 0, 1, 0.7),
        figure("new tokens", "decode", 0, 1, 0.7),
        figure("prompt", "prefill", 2, 3, 0.7),
        figure("new tokens", "decode", 2, 3, 0.7),
        figure("prompt", "prefill", 2, 0, 0.9),
        figure("new tokens", "decode", 2, 0, 0.9),
    ];
    let about = format!(
        "SmolLM2-135M from its Q4_1 file, {rows} x {tokens} tokens of prompt, {new_tokens} new ones for \
         each; with and without a LoRA of rank 16 on all linear layers that is not merged. llama.cpp with one thread or with all, whichever is faster."
    );
    let versions = Some(setup.llama_version());
    Ok(Case { name: name.into(), about, sides, figures, versions })
}

fn gguf_in(folder: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files = files.filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    files.next().with_context(|| format!("{}: no GGUF file", folder.display()))
}

fn llama(setup: &Setup, name: &str, order: Value) -> Result<Side> {
    let folder = setup.llama()?;
    Ok(Side::new(name, move |_| {
        let mut command = Command::new("node");
        command.current_dir(&folder).arg("bench_llama.mjs").arg(order.to_string());
        Ok(command)
    }))
}
