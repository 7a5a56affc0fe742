#![doc = include_str!("../README.md")]

pub mod data;
pub mod model;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use peft_core::{ModuleNames, Targets};
use peft_lora::LoraConfig;

use data::Pictures;
use model::Cnn;

/// LoRA of rank 4 on every matrix of the network; the convolution has none, and is only frozen.
pub fn lora() -> LoraConfig {
    let target_modules = Some(ModuleNames::Pattern("all-linear".into()));
    let targets = Targets { target_modules, ..Targets::default() };
    LoraConfig { rank: 4, alpha: 8.0, targets, ..LoraConfig::default() }
}

/// Trains whatever of the network is not frozen; returns it with the loss of each step.
pub fn train(mut model: Cnn, pictures: &Pictures, rate: f64, steps: usize) -> (Cnn, Vec<f32>) {
    let loss = CrossEntropyLossConfig::new().init(&pictures.pixels.device());
    let mut optimizer = AdamConfig::new().init();
    let mut losses = Vec::with_capacity(steps);
    for _ in 0..steps {
        let logits = model.forward(pictures.pixels.clone());
        let loss = loss.forward(logits, pictures.classes.clone());
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(rate, model, gradients);
    }
    (model, losses)
}

/// The share of pictures that the network tells right.
pub fn accuracy(model: &Cnn, pictures: &Pictures) -> f32 {
    let logits = model.valid().forward(pictures.pixels.clone().inner());
    let right = logits.argmax(1).squeeze_dim::<1>(1).equal(pictures.classes.clone());
    right.float().mean().into_scalar()
}
