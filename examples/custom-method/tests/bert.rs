//! The method at work: registered by name, trained inside a BERT, saved and loaded.

use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, activation::log_softmax};
use custom_method::ScaleConfig;
use peft_core::Stack;
use peft_format::{Accounting, Adapter, AdapterConfig, Registry, TaskType};
use peft_models::{Forward, Model, ModelInput};
use serde_json::{Map, json};

const STEPS: usize = 30;

#[test]
fn trains_and_reloads_in_bert() {
    let device = Device::default();
    let model = Path::new("../../tests/fixtures/bases/bert");
    let (model, _) = Model::load(model, None, &device).expect("a BERT");

    let mut registry = Registry::new();
    registry.register::<ScaleConfig>();
    let fields = Map::from_iter([("target_modules".to_string(), json!("all-linear"))]);
    let config = registry.configure("scale", fields).expect("its configuration");
    let config =
        AdapterConfig::new(config).with_task(TaskType::SequenceClassification, model.base());
    let mut adapter = Adapter::new(config, model.base(), &device).expect("it fits");

    // Six layers in each of two blocks of width 32, feed-forward width 64, and the pooler.
    let accounting = Accounting::new(&adapter, model.base());
    let expected = 2 * (4 * (32 + 32) + 2 * (32 + 64)) + (32 + 32);
    assert_eq!(accounting.trainable - accounting.head_trainable, expected);

    let texts: [&[u32]; 4] = [&[2, 11, 29, 83, 5, 3], &[2, 90, 3], &[2, 47, 61, 12, 3], &[2, 7, 3]];
    let input = ModelInput::from_rows(&texts, None, 0, &device).expect("a batch");
    let labels = Tensor::<1, Int>::from_data([0, 2, 1, 2], &device);
    let losses;
    (adapter.method, losses) = train(&model, adapter.method, &input, &labels);
    assert!(losses[STEPS - 1] < 0.5 * losses[0], "the loss did not fall: {losses:?}");

    let directory = tempfile::tempdir().expect("a directory");
    adapter.save(directory.path(), model.base()).expect("it is saved");
    let loaded = Adapter::load(directory.path(), &registry, model.base(), &device)
        .expect("it is loaded by its tag");
    let [before, after] = [&adapter, &loaded].map(|adapter| {
        let logits = model.infer(&input, &adapter.method.valid()).expect("logits");
        logits.into_data().try_into_vec::<f32>().expect("floats")
    });
    assert_eq!(before, after);
}

/// Trains on one batch, and returns the loss of each step. (`peft-train` does it with data files,
/// schedules and checkpoints; Burn's own optimizer is all that a method needs.)
fn train(
    model: &Model,
    mut method: Stack,
    input: &ModelInput,
    labels: &Tensor<1, Int>,
) -> (Stack, Vec<f32>) {
    let mut optimizer = AdamWConfig::new().init();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let forward = Forward::train(&method, 0, step as u64);
        let logits = model.forward(input, forward).expect("logits").squeeze_dim(1);
        let picked = log_softmax(logits, 1).gather(1, labels.clone().unsqueeze_dim::<2>(1));
        let loss = picked.mean().neg();
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &method);
        method = optimizer.step(2e-2, method, gradients);
    }
    (method, losses)
}
