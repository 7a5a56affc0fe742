//! The batches that a method may look at before it is trained.

use burn::tensor::Tensor;
use peft_core::{Calibration, Hooks};
use peft_data::{Batches, Goal, TokenizedSet};
use peft_models::{Forward, Model};

use crate::loss::loss;

/// The batches of a run's first epoch, for a method that looks at the data when it is initialised.
#[derive(Debug)]
pub struct CalibrationBatches<'d> {
    model: &'d Model,
    data: &'d TokenizedSet,
    goal: Goal,
    batches: Batches,
}

impl<'d> CalibrationBatches<'d> {
    /// Batches of `batch_size` texts in an order that the seed gives.
    pub fn new(
        model: &'d Model,
        data: &'d TokenizedSet,
        goal: Goal,
        batch_size: usize,
        seed: u64,
    ) -> Self {
        Self { model, data, goal, batches: data.shuffled(batch_size, false, seed, 0) }
    }
}

impl Calibration for CalibrationBatches<'_> {
    fn len(&self) -> usize {
        self.batches.len()
    }

    fn loss(&self, batch: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        let indices = self.batches.iter().nth(batch).unwrap_or_default();
        Ok(self.loss_of(indices, hooks)?.0)
    }

    fn num_examples(&self) -> usize {
        self.data.len()
    }

    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        let index = self.batches.iter().flatten().nth(example).copied().unwrap_or_default();
        let (mean, targets) = self.loss_of(&[index], hooks)?;
        Ok(mean * targets as f64)
    }
}

impl CalibrationBatches<'_> {
    /// The mean loss of some examples, and the number of their targets.
    fn loss_of(
        &self,
        indices: &[usize],
        hooks: &dyn Hooks,
    ) -> peft_core::Result<(Tensor<1>, usize)> {
        let device = self.model.base().device();
        let batch = self.data.batch(indices, 0, device).map_err(peft_core::Error::pass)?;
        if batch.asks_nothing() {
            return Ok((Tensor::zeros([1], device), 0));
        }
        let logits = batch.logits(self.model, Forward::infer(hooks));
        let logits = logits.map_err(peft_core::Error::pass)?;
        Ok((loss(self.goal, &logits, &batch), batch.targets.len()))
    }
}
