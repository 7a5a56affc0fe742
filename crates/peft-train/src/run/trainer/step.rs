//! One optimizer step.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use peft_core::{LossContext, Memo, Method, Progress as StepProgress, Stack, StepContext};
use peft_data::{Batch, mix};
use peft_kernels::AdamW;
use peft_kernels::profile::span;
use peft_models::{Forward, Recompute};

use super::{RANDOM_STATE, State, TrainData, Trainer};
use crate::loss::loss;
use crate::run::{Entry, gradients, moments};
use crate::{Error, Result};

impl Trainer<'_> {
    /// One optimizer step over some batches.
    pub(super) fn step(
        &self,
        state: &mut State<'_>,
        data: &TrainData,
        batches: &[Batch],
        epoch: usize,
        total: usize,
    ) -> Result<Entry> {
        let step = state.position.step;
        let targets: usize = batches.iter().map(|batch| batch.targets.len()).sum();
        // Every token has the same weight, in whatever group's batch it is.
        let weight = match self.settings.group_by_length && self.task.labels.goal.is_over_tokens() {
            true => {
                let expected = data.train.mean_targets(self.settings.batch_size);
                targets as f64 / (batches.len() as f64 * expected)
            }
            false => 1.0,
        };
        let mut accumulator = GradientsAccumulator::new();
        let (mut mean, mut tokens) = (0.0, 0);
        let progress = StepProgress { step, total };
        let inner = self.settings.gradient_checkpointing.then(|| state.method.valid());
        for (number, batch) in batches.iter().enumerate() {
            if batch.asks_nothing() {
                continue;
            }
            // Dropout of a step is the same whether or not the run was cut off before it.
            let (seed, memo) = (mix(self.seed ^ RANDOM_STATE, number as u64), Memo::new());
            let states = state.frozen.as_ref().map(|frozen| frozen.train.of(batch, &state.method));
            let states = states.transpose()?;
            let how = Forward::train(&state.method, seed, step as u64).with_memo(&memo);
            let recompute = inner.as_ref().map(|inner| Recompute::new(self.model, inner));
            let how = recompute.iter().fold(how, Forward::with_recompute);
            let how = states.iter().fold(how, Forward::from_layer);
            let logits = span("forward: the rest", || batch.logits(self.model, how))?;
            let again = || {
                let logits = batch.logits(self.model, how).map_err(peft_core::Error::pass)?;
                Ok(logits.tensor())
            };
            let context = LossContext { progress, logits: &|| logits.tensor(), again: &again };
            let of_method = state.method.loss(&context)?;
            let share = batch.targets.len() as f64 / targets as f64;
            let loss =
                span("loss: the rest", || loss(self.task.labels.goal, &logits, batch)) * share;
            tokens += batch.tokens;
            let objective = match of_method {
                Some(of_method) => loss.clone() * weight + of_method * share,
                None => loss.clone() * weight,
            };
            let gradients = span("backward: the rest", || match recompute {
                Some(recompute) => recompute.backward(&state.method, objective),
                None => GradientsParams::from_grads(objective.backward(), &state.method),
            });
            accumulator.accumulate(&state.method, gradients);
            // Read when all is under way: on some devices a read waits for what was asked before.
            mean += loss.into_scalar::<f32>();
        }
        if !mean.is_finite() {
            return Err(Error::Diverged { step: step + 1, quantity: "loss".into() });
        }
        let mut gradients = accumulator.grads();
        if step == 0 {
            let missed = gradients::without_gradient(&state.method, &gradients);
            if !missed.is_empty() {
                tracing::warn!("parameters without a gradient, which stay as they are: {missed:?}");
            }
        }
        if self.settings.max_grad_norm > 0.0 {
            span("clipping", || {
                gradients::clip(&state.method, &mut gradients, self.settings.max_grad_norm);
            });
        }
        let lr = self.learning_rate(step, total);
        let seen = gradients::copied(&state.method, &gradients);
        state.method.precondition(&mut gradients);
        // Not a copy of it: what is updated is held once.
        let method = std::mem::replace(&mut state.method, Stack::new(Vec::new()));
        state.method =
            span("optimizer", || state.optimizer.step(self.rates.at(lr), method, gradients));
        state.position.step += 1;
        state.position.tokens += tokens;
        let progress = StepProgress { step: state.position.step, total };
        let before = moments::parameters(&state.method);
        state.method.after_step(&StepContext { progress, gradients: &seen });
        let adamw = AdamW::new(self.settings.weight_decay);
        moments::forget(&mut state.optimizer, &before, &state.method, &adamw);
        Ok(Entry::Step { step: state.position.step, epoch: epoch + 1, loss: mean, lr, tokens })
    }

    fn learning_rate(&self, step: usize, total: usize) -> f64 {
        let highest = self.settings.lr.unwrap_or(self.adapter.config.method.learning_rate());
        let warmup = (total as f64 * self.settings.warmup_ratio).round() as usize;
        highest * self.settings.schedule.share(step, warmup, total)
    }
}
