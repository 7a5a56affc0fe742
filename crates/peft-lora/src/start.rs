//! How factors start, and what is dropped of them in training.

use burn::module::Param;
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{InitContext, Pass};

/// Kaiming-uniform with `a = sqrt(5)`, as PyTorch starts a linear layer: within `1 / sqrt(fan_in)`.
pub(crate) fn kaiming<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    context: &InitContext<'_>,
) -> Param<Tensor<D>> {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Param::from_tensor(context.random(shape, Distribution::Uniform(-bound, bound)))
}

/// The same for a factor `[d_in, d_out]`, whose fan-in is the number of rows.
pub(crate) fn kaiming_factor(shape: [usize; 2], context: &InitContext<'_>) -> Param<Tensor<2>> {
    kaiming(shape, shape[0], context)
}

/// A factor that is random, or zero.
pub(crate) fn kaiming_or_zero(
    is_random: bool,
    shape: [usize; 2],
    context: &InitContext<'_>,
) -> Param<Tensor<2>> {
    match is_random {
        true => kaiming_factor(shape, context),
        false => zeros(shape, context),
    }
}

/// Zeros.
pub(crate) fn zeros<const D: usize>(
    shape: [usize; D],
    context: &InitContext<'_>,
) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::zeros(shape, context.device))
}

/// What LoHa and LoKr leave out of a step of training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropped {
    /// The probability of leaving a layer as it is.
    pub(crate) module: f64,
    /// The probability of leaving one of its outputs as it is.
    pub(crate) rank: f64,
    /// Whether the change of the other outputs is divided by the share that they are.
    pub(crate) rank_is_scaled: bool,
}

impl Dropped {
    /// Factors on the columns of a change, `[d_out]`; `None` where it stays as it is.
    pub(crate) fn columns(
        self,
        d_out: usize,
        device: &Device,
        pass: &Pass<'_>,
    ) -> Option<Tensor<1>> {
        let kept = |count: usize, p: f64| {
            let ones = Tensor::<1>::ones([count], &device.clone().without_autodiff());
            (p > 0.0 && pass.mode.is_training()).then(|| pass.dropout(ones, p) * (1.0 - p))
        };
        let module = kept(1, self.module);
        let outputs = kept(d_out, self.rank).map(|outputs| match self.rank_is_scaled {
            true => outputs.clone() / outputs.mean().clamp_min(1.0 / d_out as f64),
            false => outputs,
        });
        match (module, outputs) {
            (Some(module), Some(outputs)) => Some(outputs * module),
            (module, outputs) => outputs.or(module.map(|module| module.expand([d_out]))),
        }
    }
}
