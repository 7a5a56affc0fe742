//! Finding a subspace between the prompts of several tasks.

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use peft_core::{Base, Error, InitContext, Result};

use super::PromptSubspace;

/// How a subspace is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubspaceSettings {
    /// `d_I`, the number of its dimensions.
    pub intrinsic_dimension: usize,
    /// `h`, the width of the decoder.
    pub hidden: usize,
    /// Steps of Adam, each over all prompts.
    pub steps: usize,
    /// Its rate.
    pub learning_rate: f64,
    /// The seed of the start.
    pub seed: u64,
}

impl Default for SubspaceSettings {
    /// 250 dimensions and a width of 768, the paper's.
    fn default() -> Self {
        Self { intrinsic_dimension: 250, hidden: 768, steps: 1000, learning_rate: 1e-3, seed: 0 }
    }
}

/// A subspace, and how well it holds the prompts that it was found between.
#[derive(Debug)]
pub struct FoundSubspace {
    /// The subspace.
    pub subspace: PromptSubspace,
    /// The mean of `(p - p')²` over all numbers of all prompts, before the first step and after the last.
    pub losses: [f32; 2],
}

/// The subspace between trained prompts, each `[L, d]` (multi-task subspace finding): the auto-encoder is
/// trained to give them back, with the mean squared error as the loss.
///
/// The paper adds the tasks' own losses under the prompts that come back, for which all models and data
/// sets have to be at hand; here prompts are enough.
///
/// # Errors
/// If there are fewer than two prompts, they differ in shape, or a setting makes no sense.
pub fn find_subspace(
    prompts: &[Tensor<2>],
    settings: &SubspaceSettings,
    device: &Device,
) -> Result<FoundSubspace> {
    let SubspaceSettings { intrinsic_dimension, hidden, steps, learning_rate, seed } = *settings;
    for (field, value) in
        [("intrinsic_dimension", intrinsic_dimension), ("hidden", hidden), ("steps", steps)]
    {
        if value == 0 {
            return Err(Error::config(field, value, "must be at least 1"));
        }
    }
    if !(learning_rate.is_finite() && learning_rate > 0.0) {
        return Err(Error::config("learning_rate", learning_rate, "must be a positive number"));
    }
    let [first, _, ..] = prompts else {
        let expected = "a subspace is between prompts: there must be at least two";
        return Err(Error::config("prompts", prompts.len(), expected));
    };
    let shape = first.dims();
    if let Some(other) = prompts.iter().find(|prompt| prompt.dims() != shape) {
        let expected = format!("all must have one shape, and the first has {shape:?}");
        return Err(Error::config("prompts", format!("{:?}", other.dims()), expected));
    }
    let plain = device.clone().without_autodiff();
    let values = shape[0] * shape[1];
    let rows = prompts.iter().map(|prompt| {
        Tensor::<2>::from_data(prompt.clone().into_data(), &plain).reshape([1, values])
    });
    let goal = Tensor::cat(rows.collect(), 0);

    let device = plain.autodiff();
    let base = Base::new(&device);
    let context = InitContext::new(&base, &device).with_seed(seed);
    let mut subspace = PromptSubspace::new([values, intrinsic_dimension, hidden], &context);
    let mut optimizer = AdamConfig::new().init();
    let goal = Tensor::from_data(goal.into_data(), &device);
    let distance = |subspace: &PromptSubspace| {
        (subspace.reconstructed(goal.clone()) - goal.clone()).square().mean()
    };
    let begin: f32 = distance(&subspace).into_scalar();
    for _ in 0..steps {
        let gradients = GradientsParams::from_grads(distance(&subspace).backward(), &subspace);
        subspace = optimizer.step(learning_rate, subspace, gradients);
    }
    let end: f32 = distance(&subspace).into_scalar();
    if !end.is_finite() {
        let expected = "the loss is not finite at this rate: a lower one may do";
        return Err(Error::config("learning_rate", learning_rate, expected));
    }
    Ok(FoundSubspace { subspace: subspace.valid(), losses: [begin, end] })
}
