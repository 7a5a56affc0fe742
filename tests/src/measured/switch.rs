//! Another adapter for a model that is loaded, beside loading the model.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use peft::format::Adapter;
use peft::models::{Forward, Model, ModelTask, Task};
use serde_json::{Value, json};

use super::{Order, drawn};

/// The seconds of loading the model, and of loading an adapter over it, in turns. The model loads an
/// adapter with nothing cached but what the operating system has of the files.
pub fn measure(order: &Order) -> Result<Value> {
    let (device, registry) = (Device::default(), peft::registry());
    let task = ModelTask { task: Task::ClassifySequence { labels: 2 }, seed: 0 };
    let load = || Model::load(&order.model, Some(task), &device);
    let model = load()?.0;
    drawn::adapter(&order.method, &order.settings, &model, &device)?
        .save(&order.out, model.base())?;
    let input = drawn::input(1, 4, &device)?;
    let (mut base, mut adapter) = (Vec::new(), Vec::new());
    for _ in 0..order.steps {
        let start = Instant::now();
        let model = load()?.0;
        base.push(start.elapsed().as_secs_f64());
        // What a model prepares in its first pass is not the adapter's.
        model.forward(&input, Forward::infer(&()))?.into_data();
        let start = Instant::now();
        let loaded = Adapter::load(&order.out, &registry, model.base(), &device)?;
        adapter.push(start.elapsed().as_secs_f64());
        model.forward(&input, Forward::infer(&loaded.method))?.into_data();
    }
    Ok(json!({"base": base, "adapter": adapter}))
}
