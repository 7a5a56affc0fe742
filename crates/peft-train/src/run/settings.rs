//! The settings of a training run.

use peft_data::Labels;
use peft_data::metrics::Metric;
use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::{Error, Result};

/// How to train.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | `epochs` | 3 | passes over the training data |
/// | `batch_size` | 32 | examples in a step's batch |
/// | `group_by_length` | false | batches of texts of similar length: less variety in a batch, and faster where texts are padded |
/// | `accumulate` | 1 | batches whose gradients make one optimizer step |
/// | `lr` | the method's | learning rate at its highest |
/// | `schedule` | `linear` | `linear` or `cosine` to zero, or `constant` |
/// | `warmup_ratio` | 0 | share of the steps in which the rate rises from zero |
/// | `weight_decay` | 0.01 | AdamW's, on every trained parameter |
/// | `max_grad_norm` | 0 | the gradient of all parameters together is scaled down to this norm; 0: never |
/// | `gradient_checkpointing` | false | keep what enters each sublayer, and run each again in the backward pass: less memory, more time |
/// | `early_stopping` | none | stop after this many epochs without a better metric |
/// | `metric` | accuracy, Spearman | judges epochs on the validation data; the best one's adapter is kept |
/// | `checkpoint_every` | 50 | optimizer steps between checkpoints; an epoch's end is one too |
/// | `cache_frozen` | none | MiB of memory for what the layers below the first trained one make of each text, computed once and without dropout |
/// | `cache_frozen_disk` | none | MiB of disk for what does not fit there |
/// | `eval_batch_size` | 64 | examples in a batch of evaluation |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the training data.
    pub epochs: usize,
    /// Examples in a batch.
    pub batch_size: usize,
    /// Whether the texts of a batch are of similar length.
    pub group_by_length: bool,
    /// Batches in an optimizer step.
    pub accumulate: usize,
    /// The highest learning rate; `None`: the method's own.
    pub lr: Option<f64>,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Share of the steps in which it rises first.
    pub warmup_ratio: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Bound on the gradient's norm; 0 for none.
    pub max_grad_norm: f64,
    /// Whether layers are run again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Epochs without improvement after which training stops.
    pub early_stopping: Option<usize>,
    /// What judges an epoch.
    pub metric: Option<Metric>,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// MiB of memory in which the output of the layers below the first trained one is kept from
    /// epoch to epoch; `None`: it is computed in every step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_frozen: Option<usize>,
    /// MiB of disk, in the run's directory, for what of it does not fit into memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_frozen_disk: Option<usize>,
    /// Examples in a batch of evaluation.
    pub eval_batch_size: usize,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 32,
            group_by_length: false,
            accumulate: 1,
            lr: None,
            schedule: Schedule::Linear,
            warmup_ratio: 0.0,
            weight_decay: 0.01,
            max_grad_norm: 0.0,
            gradient_checkpointing: false,
            early_stopping: None,
            metric: None,
            checkpoint_every: 50,
            cache_frozen: None,
            cache_frozen_disk: None,
            eval_batch_size: 64,
        }
    }
}

impl TrainSettings {
    /// What judges an epoch of a run for these labels.
    pub fn judge(&self, labels: &Labels) -> Metric {
        self.metric.unwrap_or(Metric::of(labels))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("checkpoint_every", self.checkpoint_every),
            ("eval_batch_size", self.eval_batch_size),
            ("early_stopping", self.early_stopping.unwrap_or(1)),
            ("cache_frozen", self.cache_frozen.unwrap_or(1)),
        ];
        if let Some((setting, value)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::setting(setting, value, "must be at least 1"));
        }
        if let (None, Some(disk)) = (self.cache_frozen, self.cache_frozen_disk) {
            let expected = "needs cache_frozen, the memory that is filled first";
            return Err(Error::setting("cache_frozen_disk", disk, expected));
        }
        let sizes = [("weight_decay", self.weight_decay), ("max_grad_norm", self.max_grad_norm)];
        for (setting, value) in sizes {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::setting(setting, value, "must be a number, at least 0"));
            }
        }
        if let Some(lr) = self.lr
            && !(lr.is_finite() && lr > 0.0)
        {
            return Err(Error::setting("lr", lr, "must be a positive number"));
        }
        if !(0.0..1.0).contains(&self.warmup_ratio) {
            let expected = "must be at least 0 and below 1: a share of the steps";
            return Err(Error::setting("warmup_ratio", self.warmup_ratio, expected));
        }
        Ok(())
    }
}
