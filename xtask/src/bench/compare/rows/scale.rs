//! Our own training step against sizes.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Named;
use crate::bench::compare::case::{Case, Figure, Read, Side};
use crate::bench::compare::setup::{Setup, sizes, with};

/// The cases.
pub const CASES: [Named; 5] = [
    ("scale/length", length),
    ("scale/batch", batch),
    ("scale/rank", rank),
    ("scale/width", width),
    ("scale/adapters", adapters),
];

/// A size of a step.
struct Size {
    label: String,
    order: Value,
    /// What it computes.
    operations: f64,
}

impl Size {
    fn new(label: String, model: &Path, [rows, tokens, r]: [usize; 3]) -> Result<Self> {
        let order = json!({
            "model": model, "method": "lora", "rows": rows, "tokens": tokens,
            "settings": {"r": r, "lora_alpha": r, "target_modules": ["query", "value"]},
        });
        Ok(Self { label, order, operations: operations(model, [rows, tokens, r])? })
    }
}

/// The products of a step: with frozen weights, forward and for the gradients of inputs; of
/// attention, forward and twice as much backward; and of LoRA on query and value, the same.
fn operations(model: &Path, [rows, tokens, r]: [usize; 3]) -> Result<f64> {
    let names = ["num_hidden_layers", "hidden_size", "intermediate_size"];
    let [layers, d, inner] = sizes(model, names)?.map(|size| size as f64);
    let [rows, tokens, r] = [rows, tokens, r].map(|size| size as f64);
    let frozen = 2.0 * 2.0 * (4.0 * d * d + 2.0 * d * inner);
    let attention = 3.0 * 4.0 * tokens * d;
    let lora = 3.0 * 2.0 * 2.0 * (2.0 * d * r);
    Ok(rows * tokens * layers * (frozen + attention + lora))
}

fn length(setup: &Setup) -> Result<Case> {
    let model = setup.encoder()?;
    let size = |tokens| Size::new(format!("{tokens} tokens"), &model, [8, tokens, 8]);
    let sizes = [32, 64, 128, 256, 512].map(size).into_iter().collect::<Result<Vec<_>>>()?;
    let about = "The encoder of `step/lora`, 8 texts; LoRA of rank 8 on query and value. Linear in the \
                 tokens; attention, which is quadratic, has the lesser part.";
    Ok(case(setup, "scale/length", about, sizes))
}

fn batch(setup: &Setup) -> Result<Case> {
    let model = setup.encoder()?;
    let size = |rows| Size::new(format!("{rows} texts"), &model, [rows, 128, 8]);
    let sizes = [4, 8, 16, 32].map(size).into_iter().collect::<Result<Vec<_>>>()?;
    let about = "The encoder of `step/lora`, texts of 128 tokens; LoRA of rank 8 on query and value. \
                 Linear in the texts.";
    Ok(case(setup, "scale/batch", about, sizes))
}

fn rank(setup: &Setup) -> Result<Case> {
    let model = setup.encoder()?;
    let size = |r| Size::new(format!("rank {r}"), &model, [8, 128, r]);
    let sizes = [4, 8, 16, 64].map(size).into_iter().collect::<Result<Vec<_>>>()?;
    let about = "The encoder of `step/lora`, 8 texts of 128 tokens; LoRA on query and value. A constant, \
                 and a part that is linear in the rank.";
    Ok(case(setup, "scale/rank", about, sizes))
}

fn width(setup: &Setup) -> Result<Case> {
    let size = |width: usize| {
        let model = setup.random_encoder(4, width)?;
        Size::new(format!("{width} wide"), &model, [8, 128, 8])
    };
    let sizes = [128, 256, 512, 1024].map(size).into_iter().collect::<Result<Vec<_>>>()?;
    let about = "Random BERTs of four layers, 8 texts of 128 tokens; LoRA of rank 8 on query and value. \
                 Quadratic in the width, but for attention.";
    Ok(case(setup, "scale/width", about, sizes))
}

fn case(setup: &Setup, name: &str, about: &str, sizes: Vec<Size>) -> Case {
    let steps = json!({"steps": setup.steps()});
    let sides = sizes.iter().map(|size| setup.ours(with(&size.order, steps.clone()))).collect();
    let least = sizes.first().map_or(1.0, |size| size.operations);
    let figure = |(side, size): (usize, &Size), what: &str, read: Read| Figure {
        name: format!("{}: {what}", size.label),
        side,
        against: (side > 0).then(|| (0, read.clone())),
        against_name: (side > 0).then(|| "the first".into()),
        read,
        bar: None,
    };
    let mut figures: Vec<Figure> = Vec::new();
    for (side, size) in sizes.iter().enumerate() {
        let expected = format!("step, s; expected x {:.2}", size.operations / least);
        figures.push(figure((side, size), &expected, Read::step()));
    }
    for (side, size) in sizes.iter().enumerate() {
        figures.push(figure((side, size), "peak memory, MB", Read::Peak));
    }
    let versions = Some("no peer".into());
    Case { name: name.into(), about: about.into(), sides, figures, versions }
}

/// How many adapters there are has no influence but on memory: each row is under one.
fn adapters(setup: &Setup) -> Result<Case> {
    let counts = [2, 4, 16, 32];
    let side = |&count: &usize| -> Result<Side> {
        Ok(setup.ours(json!({
            "what": "infer", "model": setup.encoder()?, "rows": 32, "tokens": 64,
            "adapters": count, "steps": if setup.quick() { 3 } else { 10 },
        })))
    };
    let sides = counts.iter().map(side).collect::<Result<Vec<_>>>()?;
    let mut figures: Vec<Figure> = Vec::new();
    for (side, count) in counts.iter().enumerate() {
        let name = format!("{count} adapters: forward pass, s; expected x 1.00");
        let within = Figure::within(&name, "pool", "lora", None);
        let against = within.against.map(|(_, read)| (side, read));
        let against_name = Some("one for all rows".into());
        figures.push(Figure { side, against, against_name, ..within });
    }
    for (side, count) in counts.iter().enumerate() {
        figures.push(Figure::alone(
            &format!("{count} adapters: peak memory, MB"),
            side,
            Read::Peak,
        ));
    }
    let about = "The encoder of `step/lora`, 32 texts of 64 tokens, each under one of several LoRAs of rank \
                 8 on query and value; inference."
        .into();
    let versions = Some("no peer".into());
    Ok(Case { name: "scale/adapters".into(), about, sides, figures, versions })
}
