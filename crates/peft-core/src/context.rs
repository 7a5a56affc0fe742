//! What a method is given in the stages of its life.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};

use crate::{Base, Calibration, Result};

/// Turns a text into the tokens that the model reads it as, special ones included.
pub type Encode<'a> = &'a dyn Fn(&str) -> Result<Vec<usize>>;

/// What a method is initialised from.
#[derive(Clone, Copy)]
pub struct InitContext<'a> {
    /// The frozen model.
    pub base: &'a Base,
    /// Where parameters are made: a device with autodiff.
    pub device: &'a Device,
    /// The seed of everything random that is not drawn from the device.
    pub seed: u64,
    /// The tokenizer, where there is one.
    pub encode: Option<Encode<'a>>,
    /// Batches to look at, where a run begins; none where a saved adapter is read, whose values
    /// replace the initial ones.
    pub calibration: Option<&'a dyn Calibration>,
    /// Whether saved values take the place of all that the method's
    /// [`exchange`](crate::Method::exchange) names, what it started from included: of these tensors
    /// the shapes are enough.
    pub restored: bool,
}

impl<'a> InitContext<'a> {
    /// Without a tokenizer or data; parameters are made where gradients are.
    pub fn new(base: &'a Base, device: &'a Device) -> Self {
        Self { base, device, seed: 0, encode: None, calibration: None, restored: false }
    }

    /// With a seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With a tokenizer.
    pub fn with_tokenizer(self, encode: Encode<'a>) -> Self {
        Self { encode: Some(encode), ..self }
    }

    /// With batches to look at.
    pub fn with_calibration(self, calibration: &'a dyn Calibration) -> Self {
        Self { calibration: Some(calibration), ..self }
    }

    /// For values that were saved.
    pub fn restored(self) -> Self {
        Self { restored: true, ..self }
    }

    /// The same over another view of the base, such as one without some sites.
    pub fn over<'b>(self, base: &'b Base) -> InitContext<'b>
    where
        'a: 'b,
    {
        InitContext { base, ..self }
    }

    /// The same with parameters on another device.
    pub fn on<'b>(self, device: &'b Device) -> InitContext<'b>
    where
        'a: 'b,
    {
        InitContext { device, ..self }
    }
}

/// How far a training run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total: usize,
}

/// What a method's part of the loss is computed from.
pub struct LossContext<'a> {
    /// How far the run is; the step under way is not done.
    pub progress: Progress,
    /// The logits `[targets, outputs]` of the batch.
    pub logits: &'a Tensor<2>,
    /// Runs the batch a second time, with other random draws: `[targets, outputs]`.
    pub again: &'a dyn Fn() -> Result<Tensor<2>>,
}

/// What a method sees after an optimizer step.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// How far the run is, this step done.
    pub progress: Progress,
    /// The gradients of the step, by parameter, after clipping.
    pub gradients: &'a GradientsParams,
}
