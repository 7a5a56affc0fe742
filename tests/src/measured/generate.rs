//! A prompt, and the tokens that follow it.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use peft::core::Hooks;
use peft::models::{GenerationConfig, Generator, Model};
use serde_json::{Value, json};

use super::{Order, drawn};

/// In each round: the seconds from the start to the first token, and tokens of all rows in a second
/// from then on. Without a method it is the base.
pub fn measure(order: &Order) -> Result<Value> {
    ensure!(order.new_tokens > 1, "new_tokens must be at least 2");
    let device = Device::default();
    let (model, _) = Model::load(&order.model, None, &device)?;
    let hooks: Box<dyn Hooks> = match order.method.as_str() {
        "" => Box::new(()),
        name => Box::new(drawn::method(name, &order.settings, &model, &device)?),
    };
    let config = GenerationConfig {
        max_new_tokens: order.new_tokens,
        eos_token_id: Vec::new(),
        ..Default::default()
    };
    let generator = Generator::new(&model, &*hooks, &config)?;
    let prompts: Vec<Vec<u32>> = (0..order.rows).map(|row| drawn::ids(order.tokens, row)).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    // The first round is to warm up.
    for round in 0..=order.steps {
        let start = Instant::now();
        let mut first = None;
        generator.generate_with(&prompts, &mut |_, _| {
            first.get_or_insert_with(Instant::now);
            false
        })?;
        let (end, first) = (Instant::now(), first.unwrap_or(start));
        if round > 0 {
            let tokens = (order.rows * (order.new_tokens - 1)) as f64;
            prefill.push((order.rows * order.tokens) as f64 / (first - start).as_secs_f64());
            decode.push(tokens / (end - first).as_secs_f64());
        }
    }
    Ok(json!({"prefill": prefill, "decode": decode}))
}
