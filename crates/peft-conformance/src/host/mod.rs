//! The models that properties are tested on.

mod batch;
mod bert;
mod gpt2;
mod llama;
mod random;
mod t5;

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use peft_core::{Calibration, Hooks, TensorMap};
use peft_format::tensors_under;
use peft_kernels::PackedMatrix;
use peft_models::{
    Checkpoint, Forward, Model, ModelConfig, ModelInput, ModelTask, Precision, Task,
};
use serde_json::Value;

use crate::numbers::values;

pub(crate) use batch::Batch;

/// The width of every host.
const HIDDEN: usize = 24;
/// Not `HIDDEN`, so that no weight of the feed-forward network passes for its transpose.
const INNER: usize = 40;
const VOCABULARY: usize = 60;
const POSITIONS: usize = 12;
const LABELS: usize = 3;

/// A small model with random weights, whose shapes tell each axis from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// A BERT classifier: two layers of width 24, feed-forward networks of width 40, three labels.
    Bert,
    /// A GPT-2: the same widths, its query, key and value one projection, and weights stored as
    /// `[d_in, d_out]`.
    Gpt2,
    /// A Llama: rotary positions, four heads of queries that share two of keys, a gated
    /// feed-forward network, a head of its own, and no biases.
    Llama,
    /// A T5: one layer of an encoder and two of a decoder, with biases by distance.
    T5,
}

impl HostKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bert, Self::Gpt2, Self::Llama, Self::T5];

    /// All but BERT: what a configuration does not fit that names modules as BERT has them.
    pub const OTHERS: &'static [Self] = &[Self::Gpt2, Self::Llama, Self::T5];

    fn task(self) -> Task {
        match self {
            Self::Bert => Task::ClassifySequence { labels: LABELS },
            Self::Gpt2 | Self::Llama => Task::CausalLm,
            Self::T5 => Task::Seq2SeqLm,
        }
    }

    /// Whether texts can be gone on with, token by token.
    pub fn has_cache(self) -> bool {
        self != Self::Bert
    }

    /// `config.json`, with this probability of every dropout.
    fn fields(self, dropout: f64) -> Value {
        match self {
            Self::Bert => bert::fields(dropout),
            Self::Gpt2 => gpt2::fields(dropout),
            Self::Llama => llama::fields(dropout),
            Self::T5 => t5::fields(dropout),
        }
    }

    /// A checkpoint, wide enough for activations to leave the linear range.
    fn tensors(self) -> TensorMap {
        match self {
            Self::Bert => bert::tensors(),
            Self::Gpt2 => gpt2::tensors(),
            Self::Llama => llama::tensors(),
            Self::T5 => t5::tensors(),
        }
    }
}

/// A small model with random weights, without dropout, and a batch of texts of different lengths
/// with what is to be predicted from them. Always the same.
#[derive(Debug, Clone)]
pub struct Host {
    /// Which model.
    pub kind: HostKind,
    /// The frozen model.
    pub model: Model,
    pub(crate) batch: Batch,
}

impl Host {
    /// The BERT classifier and its batch on `device`.
    pub fn new(device: &Device) -> Self {
        Self::of(HostKind::Bert, device)
    }

    /// A model and its batch on `device`.
    pub fn of(kind: HostKind, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let model = model(kind, kind.tensors(), Precision::Full, 0.0, &device);
        Self { kind, model, batch: Batch::new(kind, &device) }
    }

    /// The batch, filled up to the longest text.
    pub fn input(&self) -> &ModelInput {
        &self.batch.input
    }

    /// A model like this one with other tensors, by checkpoint key: one with a method merged in.
    ///
    /// # Panics
    /// If a tensor is missing, unknown or mis-shaped.
    pub fn with_tensors(&self, tensors: TensorMap) -> Self {
        let device = self.model.base().device();
        Self { model: model(self.kind, tensors, Precision::Full, 0.0, device), ..self.clone() }
    }

    /// The same model with its weights packed in 16 bits; `None` on a device that does not compute
    /// on packed weights.
    pub fn packed(&self) -> Option<Self> {
        let device = self.model.base().device();
        if !PackedMatrix::is_supported(device) {
            return None;
        }
        let tensors = tensors_under(&(), self.model.base());
        let model = model(self.kind, tensors, Precision::Half, 0.0, device);
        Some(Self { model, ..self.clone() })
    }

    /// The same model with dropout wherever it has some.
    pub fn with_dropout(&self) -> Self {
        let (device, tensors) = (self.model.base().device(), self.kind.tensors());
        let model = model(self.kind, tensors, Precision::Full, 0.3, device);
        Self { model, ..self.clone() }
    }

    /// The same model with another batch.
    pub(crate) fn with_batch(&self, batch: Batch) -> Self {
        Self { batch, ..self.clone() }
    }

    /// What the model says of each text, or of each of their tokens: `[targets, outputs]`.
    pub(crate) fn outputs(&self, how: Forward<'_>) -> Tensor<2> {
        let Batch { input, places, .. } = &self.batch;
        let outputs = match places.is_empty() {
            true => self.model.forward(input, how).map(|logits| logits.squeeze_dim(1)),
            false => self.model.forward_at(input, places, how),
        };
        outputs.unwrap_or_else(|e| panic!("the batch does not fit the model: {e}"))
    }

    /// The logits of the batch under `hooks`, flat.
    pub fn logits(&self, hooks: &dyn Hooks) -> Vec<f32> {
        values(self.outputs(Forward::infer(hooks)))
    }

    /// The mean cross-entropy `[1]` of `outputs`.
    pub(crate) fn loss_of(&self, outputs: Tensor<2>) -> Tensor<1> {
        let targets = self.batch.targets.clone();
        let shape = [targets.len(), 1];
        let targets = TensorData::new(targets, shape);
        let targets = Tensor::<2, Int>::from_data(targets, self.model.base().device());
        log_softmax(outputs, 1).gather(1, targets).mean().neg()
    }

    /// The mean cross-entropy `[1]` of the batch under `hooks`, without dropout.
    pub fn loss(&self, hooks: &dyn Hooks) -> Tensor<1> {
        self.loss_of(self.outputs(Forward::infer(hooks)))
    }

    /// The batch as calibration data: its texts once in two batches.
    pub fn calibration(&self) -> impl Calibration {
        let halves = self.batch.halves(self.model.base().device());
        Batches { hosts: halves.map(|batch| self.with_batch(batch)), all: self.clone() }
    }
}

struct Batches {
    hosts: [Host; 2],
    all: Host,
}

impl Calibration for Batches {
    fn len(&self) -> usize {
        self.hosts.len()
    }

    fn loss(&self, batch: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        Ok(self.hosts[batch].loss(hooks))
    }

    fn num_examples(&self) -> usize {
        self.all.batch.len()
    }

    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        let batch = self.all.batch.rows(&[example], self.all.model.base().device());
        let targets = batch.targets.len();
        Ok(self.all.with_batch(batch).loss(hooks) * targets as f64)
    }
}

fn model(
    kind: HostKind,
    tensors: TensorMap,
    precision: Precision,
    dropout: f64,
    device: &Device,
) -> Model {
    let Value::Object(fields) = kind.fields(dropout) else { unreachable!("an object") };
    let config = ModelConfig::from_fields(fields, "random".as_ref()).expect("it is supported");
    let mut checkpoint = Checkpoint::from_tensors("random", tensors).with_precision(precision);
    let task = ModelTask { task: kind.task(), seed: 0 };
    let (model, report) = Model::from_checkpoint(config, &mut checkpoint, task, device)
        .unwrap_or_else(|e| panic!("the tensors are not those of the model: {e}"));
    assert!(report.initialized.is_empty() && report.unused.is_empty(), "{report:?}");
    model
}
