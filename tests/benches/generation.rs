//! How fast a causal language model reads and writes:
//! `cargo bench -p peft-tests --bench generation -- MODEL`.
//!
//! Tokens in a second, as medians of five: of a prompt of 512 tokens; of 128 new ones, in one row and in
//! eight; and the same under a LoRA adapter of every linear layer that is not merged.

use std::path::Path;
use std::time::Instant;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft::core::{BoxedMethod, Hooks};
use peft::format::{Adapter, AdapterConfig};
use peft::models::{GenerationConfig, Generator, Model};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REPETITIONS: usize = 5;

fn main() -> anyhow::Result<()> {
    let device = Device::default();
    for directory in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let (model, _) = Model::load(Path::new(&directory), None, &device)?;
        let lora = lora(&model, &device)?;
        for (under, hooks) in [("", &() as &dyn Hooks), (", LoRA", &lora)] {
            let [read, _] = timed(&model, hooks, 1, 512, 1)?;
            show(&format!("read 512 tokens{under}"), read);
            for rows in [1, 8] {
                let [_, written] = timed(&model, hooks, rows, 32, 129)?;
                show(&format!("write 128 tokens, {rows} rows{under}"), written);
            }
        }
    }
    Ok(())
}

/// Away from its start.
struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.clone() + tensor.random_like(Distribution::Normal(0.0, 0.01)))
    }
}

fn lora(model: &Model, device: &Device) -> anyhow::Result<BoxedMethod> {
    let fields = json!({ "r": 8, "target_modules": "all-linear" });
    let fields = fields.as_object().expect("an object").clone();
    let method = peft::registry().configure("lora", fields)?;
    let adapter = Adapter::new(AdapterConfig::new(method), model.base(), device)?;
    Ok(BoxedMethod::new(adapter.method.map(&mut Noise).valid()))
}

/// Tokens in a second, sorted: of the prompts, and of what is written behind the first new token.
fn timed(
    model: &Model,
    hooks: &dyn Hooks,
    rows: usize,
    tokens: usize,
    new: usize,
) -> anyhow::Result<[Vec<f64>; 2]> {
    let config = GenerationConfig {
        eos_token_id: Vec::new(),
        max_new_tokens: new,
        ..GenerationConfig::default()
    };
    let prompts: Vec<Vec<u32>> = (0..rows)
        .map(|row| (0..tokens).map(|place| ((place * 7919 + row * 31) % 40_000) as u32).collect())
        .collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let generator = Generator::new(model, hooks, &config)?;
    let mut rates = [Vec::new(), Vec::new()];
    for repetition in 0..=REPETITIONS {
        let start = Instant::now();
        let mut first = None;
        generator.generate_with(&prompts, &mut |_, _| {
            first.get_or_insert_with(Instant::now);
            false
        })?;
        let first = first.expect("a token was chosen");
        let times = [first - start, first.elapsed()];
        if repetition > 0 {
            let counts = [rows * tokens, rows * (new - 1)];
            for ((rates, time), count) in rates.iter_mut().zip(times).zip(counts) {
                rates.push(count as f64 / time.as_secs_f64());
            }
        }
    }
    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    Ok(rates)
}

fn show(what: &str, rates: Vec<f64>) {
    let [least, median, most] = [0, REPETITIONS / 2, REPETITIONS - 1].map(|place| rates[place]);
    println!("{what:36} {median:8.1} tokens/s  ({least:.1} to {most:.1})");
}
