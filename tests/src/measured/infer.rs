//! The same forward pass under different methods, in turns.

use std::time::Instant;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use peft::core::{AdapterPool, BoxedMethod, Hooks, Memo, Slots};
use peft::format::merged_tensors;
use peft::models::{Forward, Model, ModelTask, Task};
use serde_json::{Map, Value, json};

use super::{Order, drawn};

/// What a batch is run under.
struct Under {
    name: &'static str,
    model: Model,
    hooks: Box<dyn Hooks>,
    slots: Slots,
}

/// The seconds of each round, by what the model runs under: nothing, the LoRA that is ordered, the
/// same merged, a Pfeiffer adapter, a prefix of 20; and `adapters` LoRAs, if there are several, each
/// for rows of its own.
pub fn measure(order: &Order) -> Result<Value> {
    let device = Device::default();
    let task = ModelTask { task: Task::ClassifySequence { labels: 2 }, seed: 0 };
    let (model, _) = Model::load(&order.model, Some(task), &device)?;
    let input = drawn::input(order.rows, order.tokens, &device)?;
    let all = variants(order, &model, &device)?;
    let mut seconds: Map<String, Value> = Map::new();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    for round in 0..=order.steps {
        for (under, times) in all.iter().zip(&mut times) {
            let start = Instant::now();
            let memo = Memo::new();
            let how = Forward::infer(&*under.hooks).with_memo(&memo).with_slots(&under.slots);
            under.model.forward(&input, how)?.into_data();
            // The first round is to warm up.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds.extend(all.iter().zip(times).map(|(u, times)| (u.name.to_string(), json!(times))));
    Ok(Value::Object(seconds))
}

fn variants(order: &Order, model: &Model, device: &Device) -> Result<Vec<Under>> {
    let lora = drawn::adapter(&order.method, &order.settings, model, device)?;
    let merged = model.with_tensors(merged_tensors(&lora, model.base())?)?;
    let under = |name, hooks: Box<dyn Hooks>| Under {
        name,
        model: model.clone(),
        hooks,
        slots: Slots::default(),
    };
    let other = |name: &str, settings: Value| -> Result<Box<dyn Hooks>> {
        let settings = settings.as_object().cloned().unwrap_or_default();
        Ok(Box::new(drawn::method(name, &settings, model, device)?))
    };
    let mut all = vec![
        under("base", Box::new(())),
        Under { model: merged, ..under("merged", Box::new(())) },
        under("lora", Box::new(BoxedMethod::new(lora.method.valid()))),
        under("pfeiffer", other("pfeiffer", json!({}))?),
        under("prefix", other("prefix", json!({"num_virtual_tokens": 20}))?),
    ];
    if order.adapters > 1 {
        let member = |_| drawn::method(&order.method, &order.settings, model, device);
        let members = (0..order.adapters).map(member).collect::<Result<Vec<_>>>()?;
        let of_rows = (0..order.rows).map(|row| Some(row % order.adapters)).collect();
        let pool = under("pool", Box::new(AdapterPool::new(members)));
        all.push(Under { slots: Slots::new(of_rows), ..pool });
    }
    Ok(all)
}
