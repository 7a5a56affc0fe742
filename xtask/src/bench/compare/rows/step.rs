//! A training step.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::Named;
use crate::bench::compare::case::{Bar, Case, Figure, Read, Side};
use crate::bench::compare::setup::{Setup, sizes, with};

/// The cases.
pub const CASES: [Named; 7] = [
    ("step/lora", |setup| {
        case(setup, &Step::new("step/lora", setup.encoder()?, 32, query_value(), 0.5))
    }),
    ("step/all-linear", |setup| {
        case(setup, &Step::new("step/all-linear", setup.encoder()?, 32, all_linear(), 0.6))
    }),
    ("step/12x768", |setup| {
        case(setup, &Step::new("step/12x768", setup.large_encoder()?, 16, query_value(), 0.6))
    }),
    ("step/12x768-all-linear", |setup| {
        let name = "step/12x768-all-linear";
        case(setup, &Step::new(name, setup.large_encoder()?, 16, all_linear(), 0.6))
    }),
    ("step/burn", burn),
    ("step/bf16", |setup| {
        let step = Step::new("step/bf16", setup.encoder()?, 32, query_value(), 0.65);
        case(setup, &Step { dtype: "bf16", ..step })
    }),
    ("step/12x768-bf16", |setup| {
        let step = Step::new("step/12x768-bf16", setup.large_encoder()?, 16, query_value(), 0.65);
        case(setup, &Step { dtype: "bf16", ..step })
    }),
];

/// LoRA as most have it.
pub fn query_value() -> Value {
    json!({"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"]})
}

/// LoRA on every linear layer.
pub fn all_linear() -> Value {
    json!({"r": 16, "lora_alpha": 32, "target_modules": "all-linear"})
}

struct Step {
    name: &'static str,
    model: PathBuf,
    rows: usize,
    settings: Value,
    dtype: &'static str,
    bar: f64,
}

/// Tokens of every text.
const TOKENS: usize = 128;

impl Step {
    fn new(name: &'static str, model: PathBuf, rows: usize, settings: Value, bar: f64) -> Self {
        Self { name, model, rows, settings, dtype: "f32", bar }
    }
}

fn case(setup: &Setup, step: &Step) -> Result<Case> {
    let products = products(step)?;
    let shapes: Vec<[usize; 3]> = products.iter().map(|(shape, _)| *shape).collect();
    let order = json!({
        "model": step.model, "method": "lora", "settings": step.settings, "rows": step.rows,
        "tokens": TOKENS, "dtype": step.dtype, "steps": setup.steps(),
    });
    let rates = json!({"what": "products", "shapes": shapes, "steps": 10, "dtype": step.dtype});
    let our_products = Side { name: "our products".into(), ..setup.ours(rates.clone()) };
    let sides = vec![
        setup.ours(order.clone()),
        setup.torch("peft", with(&order, json!({"library": "peft"})))?,
        setup.torch("products in PyTorch", rates)?,
        our_products,
    ];
    let (bar, memory) = (Some(Bar::AtMost(step.bar)), Some(Bar::AtMost(0.5)));
    let over = |name: &str, side: usize| Figure {
        against: Some((side, Read::Products(products.clone()))),
        ..Figure::of(name, Read::step(), side, None)
    };
    let figures = vec![
        Figure::of("step, s", Read::step(), 1, bar),
        Figure::of("peak memory, MB", Read::Peak, 1, memory),
        Figure::of("trained values", Read::Value("/trainable"), 1, None),
        over("step over its frozen products there, s", 2),
        over("step over its frozen products, s", 3),
    ];
    let r = &step.settings["r"];
    let on = match step.settings["target_modules"].as_str() {
        Some(all) => format!("{all} layers"),
        None => "query and value".into(),
    };
    let [layers, width] = sizes(&step.model, ["num_hidden_layers", "hidden_size"])?;
    let about = format!(
        "BERT of {layers} layers, {width} wide; {} texts of {TOKENS} tokens; LoRA of rank {r} on {on}; \
         {}, the peer's `torch.autocast` where it is bf16.",
        step.rows, step.dtype
    );
    Ok(Case { name: step.name.into(), about, sides, figures, versions: None })
}

/// Beside what Burn itself has.
fn burn(setup: &Setup) -> Result<Case> {
    let model = setup.encoder()?;
    let names = ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"];
    let encoder = sizes(&model, names)?;
    let order = json!({"rows": 32, "tokens": TOKENS, "steps": setup.steps()});
    let of_ours = json!({"model": model, "method": "lora", "settings": query_value()});
    let of_burn = json!({"what": "burn", "sizes": encoder});
    let mut sides = vec![setup.ours(with(&order, of_ours)), setup.ours(with(&order, of_burn))];
    sides[1].name = "Burn's apply_lora".into();
    let figures = vec![
        Figure::of("step, s", Read::step(), 1, None),
        Figure::of("peak memory, MB", Read::Peak, 1, None),
    ];
    let about =
        "The same as `lora`, beside Burn's own `TransformerEncoder` of the same size under \
                 `apply_lora` (rank 8 on query and value), which begins behind the embeddings and \
                 clips nothing."
            .into();
    let versions = Some("burn 0.22.1".into());
    Ok(Case { name: "step/burn".into(), about, sides, figures, versions })
}

/// The products with frozen weights of a step, and how often each is computed: forward, and for the
/// gradients of the layers' inputs. Nothing below the first layer's query, key and value is trained.
fn products(step: &Step) -> Result<Vec<([usize; 3], usize)>> {
    let names = ["num_hidden_layers", "hidden_size", "intermediate_size"];
    let [layers, d, inner] = sizes(&step.model, names)?;
    let tokens = step.rows * TOKENS;
    Ok(vec![
        ([tokens, d, d], 8 * layers - 3),
        ([tokens, d, inner], 2 * layers),
        ([tokens, inner, d], 2 * layers),
    ])
}
