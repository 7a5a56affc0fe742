//! What a method is given in the stages of its life.

use std::cell::RefCell;
use std::rc::Rc;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{Base, Calibration, Result};

/// Turns a text into the tokens that the model reads it as, special ones included.
pub type Encode<'a> = &'a dyn Fn(&str) -> Result<Vec<usize>>;

/// What a method is initialised from.
#[derive(Clone)]
pub struct InitContext<'a> {
    /// The frozen model.
    pub base: &'a Base,
    /// Where parameters are made: a device with autodiff.
    pub device: &'a Device,
    /// `None` where all that would be drawn is replaced.
    random: Option<Rc<RefCell<StdRng>>>,
    /// The tokenizer, where there is one.
    pub encode: Option<Encode<'a>>,
    /// Batches to look at, where a run begins or is resumed; none where a saved adapter is read, whose
    /// values replace the initial ones.
    pub calibration: Option<&'a dyn Calibration>,
    /// Whether saved values take the place of all that the method's
    /// [`exchange`](crate::Method::exchange) names, what it started from included: of these tensors
    /// the shapes are enough.
    pub restored: bool,
}

impl<'a> InitContext<'a> {
    /// Without a tokenizer or data, with seed 0; parameters are made where gradients are.
    pub fn new(base: &'a Base, device: &'a Device) -> Self {
        let (random, encode, calibration) = (Some(seeded(0)), None, None);
        Self { base, device, random, encode, calibration, restored: false }
    }

    /// With another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { random: Some(seeded(seed)), ..self }
    }

    /// With a tokenizer.
    pub fn with_tokenizer(self, encode: Encode<'a>) -> Self {
        Self { encode: Some(encode), ..self }
    }

    /// With batches to look at.
    pub fn with_calibration(self, calibration: &'a dyn Calibration) -> Self {
        Self { calibration: Some(calibration), ..self }
    }

    /// For a method whose tensors are read from a file: nothing is drawn, and random values are
    /// zeros.
    pub fn read(self) -> Self {
        Self { random: None, ..self }
    }

    /// Whether saved values take the place of those that would be drawn.
    pub fn is_read(&self) -> bool {
        self.random.is_none()
    }

    /// For values that were saved.
    pub fn restored(self) -> Self {
        Self { restored: true, ..self }
    }

    /// The same over another view of the base, such as one without some sites.
    pub fn over<'b>(&self, base: &'b Base) -> InitContext<'b>
    where
        'a: 'b,
    {
        InitContext { base, ..self.clone() }
    }

    /// The same with parameters on another device.
    pub fn on<'b>(&self, device: &'b Device) -> InitContext<'b>
    where
        'a: 'b,
    {
        InitContext { device, ..self.clone() }
    }

    /// A tensor of random values on [`device`](Self::device).
    ///
    /// The values are drawn on the host from the context's seed, each tensor after the one before
    /// it, so that they are the same on every device, and whatever else in the process draws random
    /// numbers. What is made of this context ([`over`](Self::over), [`on`](Self::on), a clone) draws
    /// from the same sequence.
    pub fn random<const D: usize>(
        &self,
        shape: [usize; D],
        distribution: Distribution,
    ) -> Tensor<D> {
        let Some(random) = &self.random else { return Tensor::zeros(shape, self.device) };
        let mut random = random.borrow_mut();
        let values = TensorData::random::<f32, _, _>(shape, distribution, &mut *random);
        Tensor::from_data(values, self.device)
    }
}

fn seeded(seed: u64) -> Rc<RefCell<StdRng>> {
    Rc::new(RefCell::new(StdRng::seed_from_u64(seed)))
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
    /// The logits `[targets, outputs]` of the batch, which are made if they are asked for.
    pub logits: &'a dyn Fn() -> Tensor<2>,
    /// Runs the batch a second time, with other random draws: `[targets, outputs]`.
    pub again: &'a dyn Fn() -> Result<Tensor<2>>,
}

/// What a method sees after an optimizer step.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// How far the run is, this step done.
    pub progress: Progress,
    /// The gradients of the step, by parameter, after clipping and before the method changed them.
    pub gradients: &'a GradientsParams,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(context: &InitContext<'_>) -> Vec<f32> {
        let values = context.random([3, 5], Distribution::Normal(0.0, 2.0));
        values.into_data().try_into_vec().expect("floats")
    }

    #[test]
    fn what_is_drawn_depends_on_the_seed_and_on_what_was_drawn_before_from_it() {
        let device = Device::default();
        let (base, other) = (Base::new(&device), Base::new(&device));
        let context = |seed| InitContext::new(&base, &device).with_seed(seed);
        let first = context(3);
        let values = [drawn(&first), drawn(&first.over(&other)), drawn(&first.clone())];
        assert!(values[0] != values[1] && values[1] != values[2] && values[0] != values[2]);

        // Whatever the device draws.
        device.seed(1);
        let again = context(3);
        assert_eq!(values, [drawn(&again), drawn(&again), drawn(&again)]);
        assert_ne!(values[0], drawn(&context(4)));
    }
}
