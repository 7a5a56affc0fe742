//! What the contract costs in use: `cargo bench -p peft-tests --bench serving [-- MODEL [MODEL]]`.
//!
//! With an encoder's directory: thirty-two LoRA adapters, one for each row of a batch, beside one adapter
//! for all rows, and packed beside padded batches. With a causal language model's: the time of a token
//! by its position.

use std::path::Path;
use std::time::Instant;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft::core::{AdapterPool, BoxedMethod, Hooks, Memo, Slots};
use peft::format::{Adapter, AdapterConfig};
use peft::models::{Forward, GenerationConfig, Generator, Model, ModelInput, ModelTask, Task};
use serde_json::{Map, Value};

#[global_allocator]
static ALLOCATOR: peft_kernels::TensorAllocator = peft_kernels::TensorAllocator;

const ROWS: usize = 32;
const TOKENS: usize = 64;
const REPETITIONS: usize = 15;

fn main() -> anyhow::Result<()> {
    let device = Device::default();
    for directory in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let directory = Path::new(&directory);
        let task = peft::models::ModelConfig::load(directory)?.own_task();
        match task {
            Task::CausalLm => tokens_by_position(directory, &device)?,
            _ => {
                mixed_rows(directory, &device)?;
                packed_rows(directory, &device)?;
            }
        }
    }
    Ok(())
}

/// Away from its start.
struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.clone() + tensor.random_like(Distribution::Normal(0.0, 0.05)))
    }
}

fn lora(model: &Model, device: &Device) -> anyhow::Result<BoxedMethod> {
    let method = peft::registry().configure("lora", Map::<String, Value>::new())?;
    let adapter = Adapter::new(AdapterConfig::new(method), model.base(), device)?;
    Ok(BoxedMethod::new(adapter.method.map(&mut Noise).valid()))
}

fn classifier(directory: &Path, device: &Device) -> anyhow::Result<Model> {
    let task = ModelTask { task: Task::ClassifySequence { labels: 2 }, seed: 0 };
    Ok(Model::load(directory, Some(task), device)?.0)
}

/// The median, the least and the most of some timings, in milliseconds.
fn timed(mut run: impl FnMut()) -> [f64; 3] {
    run();
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[REPETITIONS / 2], times[0], times[REPETITIONS - 1]]
}

fn show(what: &str, [median, least, most]: [f64; 3]) {
    println!("{what:44} {median:8.2} ms  ({least:.2} to {most:.2})");
}

fn texts(lengths: &[usize], device: &Device) -> anyhow::Result<ModelInput> {
    let rows: Vec<Vec<u32>> = lengths
        .iter()
        .enumerate()
        .map(|(row, &tokens)| {
            (0..tokens).map(|i| 1000 + (row * 131 + i * 17) as u32 % 900).collect()
        })
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    Ok(ModelInput::from_rows(&rows, None, 0, device)?)
}

fn mixed_rows(directory: &Path, device: &Device) -> anyhow::Result<()> {
    let model = classifier(directory, device)?;
    let members = (0..ROWS).map(|_| lora(&model, device)).collect::<anyhow::Result<Vec<_>>>()?;
    let one = members[0].clone();
    let pool = AdapterPool::new(members);
    let input = texts(&[TOKENS; ROWS], device)?;
    let memo = Memo::new();
    let slots = Slots::new((0..ROWS).map(Some).collect());
    let run = |how: Forward<'_>| {
        model.forward(&input, how).expect("the texts fit").into_data();
    };
    let alone = timed(|| run(Forward::infer(&one)));
    let mixed = timed(|| run(Forward::infer(&pool).with_slots(&slots).with_memo(&memo)));
    let base = timed(|| run(Forward::infer(&())));
    show("base alone, 32 x 64 tokens", base);
    show("one LoRA for all rows", alone);
    show("32 LoRAs, one for each row", mixed);
    println!("throughput of 32 adapters: {:.3} of one adapter's", alone[0] / mixed[0]);
    Ok(())
}

fn packed_rows(directory: &Path, device: &Device) -> anyhow::Result<()> {
    let model = classifier(directory, device)?;
    let hooks = lora(&model, device)?;
    let lengths: Vec<usize> = (0..32).map(|row| 4 + (row * 37) % 50).collect();
    let input = texts(&lengths, device)?;
    let run = |how: Forward<'_>| {
        model.forward(&input, how).expect("the texts fit").into_data();
    };
    let packed = timed(|| run(Forward::infer(&hooks)));
    let padded = timed(|| run(Forward::infer(&hooks).padded()));
    show("ragged batch of 32, packed", packed);
    show("ragged batch of 32, padded", padded);
    println!("packed takes {:.3} of padded", packed[0] / padded[0]);
    Ok(())
}

fn tokens_by_position(directory: &Path, device: &Device) -> anyhow::Result<()> {
    let (model, _) = Model::load(directory, None, device)?;
    let most = 1040.min(model.max_tokens().saturating_sub(1));
    let config =
        GenerationConfig { max_new_tokens: most, eos_token_id: Vec::new(), ..Default::default() };
    let hooks: &dyn Hooks = &();
    let prompt: Vec<u32> = (1..9).collect();
    let mut times = Vec::with_capacity(most);
    let mut last = Instant::now();
    Generator::new(&model, hooks, &config)?.generate_with(&[&prompt], &mut |_, _| {
        times.push(last.elapsed().as_secs_f64() * 1e3);
        last = Instant::now();
        false
    })?;
    let around = |position: usize| {
        let from = position.saturating_sub(20).max(1);
        let mut window = times.get(from..(position + 20).min(times.len())).unwrap_or(&[]).to_vec();
        window.sort_by(f64::total_cmp);
        window.get(window.len() / 2).copied()
    };
    let first = around(50);
    for position in [50, 100, 200, 400, 600, 800, 1000] {
        let (Some(time), Some(first)) = (around(position), first) else { continue };
        println!(
            "token at position {position:5}: {time:7.2} ms, {:.3} of that at 50",
            time / first
        );
    }
    Ok(())
}
