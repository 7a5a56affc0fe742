//! The model that properties are tested on.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use peft_core::{Calibration, Hooks, TensorMap, tensors_under};
use peft_kernels::PackedMatrix;
use peft_models::{Checkpoint, Model, ModelConfig, ModelInput, ModelTask, Pass, Precision, Task};
use serde_json::{Value, json};

use crate::numbers::{Normal, values};

const HIDDEN: usize = 24;
/// Not `HIDDEN`, so that no weight of the feed-forward network passes for its transpose.
const INNER: usize = 40;
const LAYERS: usize = 2;
const VOCABULARY: usize = 60;
const POSITIONS: usize = 12;
const LABELS: usize = 3;

/// A small BERT classifier with random weights, biases and norms, without dropout, and a batch of
/// four texts of different lengths with their labels. Always the same.
#[derive(Debug, Clone)]
pub struct Host {
    /// The frozen model.
    pub model: Model,
    /// Four texts, filled up to the longest.
    pub input: ModelInput,
    /// The label of each text, `[4]`.
    pub labels: Tensor<1, Int>,
}

impl Host {
    /// The model and its batch on `device`.
    pub fn new(device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let texts: [&[u32]; 4] =
            [&[2, 17, 5, 59, 31, 8, 3], &[2, 44, 3], &[2, 9, 23, 50, 3], &[2, 3]];
        let input = ModelInput::from_rows(&texts, None, 0, &device).expect("the texts fit");
        let labels = Tensor::from_data(TensorData::from([0i64, 2, 1, 2]), &device);
        Self { model: model(random_tensors(), Precision::Full, &device), input, labels }
    }

    /// A model like this one with other tensors, by checkpoint key: one with a method merged in.
    ///
    /// # Panics
    /// If a tensor is missing, unknown or mis-shaped.
    pub fn with_tensors(&self, tensors: TensorMap) -> Self {
        Self { model: model(tensors, Precision::Full, self.model.base().device()), ..self.clone() }
    }

    /// The same model with its weights packed in 16 bits; `None` on a device that does not compute
    /// on packed weights.
    pub fn packed(&self) -> Option<Self> {
        let device = self.model.base().device();
        if !PackedMatrix::is_supported(device) {
            return None;
        }
        let tensors = tensors_under(&(), self.model.base());
        Some(Self { model: model(tensors, Precision::Half, device), ..self.clone() })
    }

    /// The logits `[4, 1, 3]` under `hooks`, flat.
    pub fn logits(&self, hooks: &dyn Hooks) -> Vec<f32> {
        values(self.model.infer(&self.input, hooks).expect("the batch fits the model"))
    }

    /// The mean cross-entropy `[1]` of the batch under `hooks`.
    pub fn loss(&self, hooks: &dyn Hooks) -> Tensor<1> {
        let logits = self.model.forward(&self.input, Pass::training(hooks));
        let logits = logits.expect("the batch fits the model");
        let [batch, _, labels] = logits.dims();
        let log_p = log_softmax(logits.reshape([batch, labels]), 1);
        log_p.gather(1, self.labels.clone().reshape([batch, 1])).mean().neg()
    }

    /// The batch as calibration data, twice over.
    pub fn calibration(&self) -> impl Calibration {
        Batches { host: self, left: 2 }
    }
}

struct Batches<'h> {
    host: &'h Host,
    left: usize,
}

impl Calibration for Batches<'_> {
    fn next_loss(&mut self, hooks: &dyn Hooks) -> Option<Tensor<1>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.host.loss(hooks))
    }
}

fn model(tensors: TensorMap, precision: Precision, device: &Device) -> Model {
    let Value::Object(fields) = json!({
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }) else {
        unreachable!("an object")
    };
    let config = ModelConfig::from_fields(fields, "random".as_ref()).expect("it is supported");
    let mut checkpoint = Checkpoint::from_tensors("random", tensors).with_precision(precision);
    let task = ModelTask { task: Task::ClassifySequence { labels: LABELS }, seed: 0 };
    let (model, report) = Model::from_checkpoint(config, &mut checkpoint, task, device)
        .expect("the tensors are those of the model");
    assert!(report.initialized.is_empty() && report.unused.is_empty(), "{report:?}");
    model
}

/// A checkpoint of such a model, wide enough for activations to leave the linear range.
fn random_tensors() -> TensorMap {
    let mut random = Random { normal: Normal::new(7), tensors: TensorMap::new() };
    let entries = [("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)];
    for (name, entries) in entries {
        random.put(
            &format!("bert.embeddings.{name}_embeddings.weight"),
            &[entries, HIDDEN],
            0.0,
            1.0,
        );
    }
    random.norm("bert.embeddings.LayerNorm");
    for layer in 0..LAYERS {
        let path = |rest: &str| format!("bert.encoder.layer.{layer}.{rest}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            random.linear(&path(&format!("attention.{name}")), [HIDDEN, HIDDEN]);
        }
        random.norm(&path("attention.output.LayerNorm"));
        random.linear(&path("intermediate.dense"), [HIDDEN, INNER]);
        random.linear(&path("output.dense"), [INNER, HIDDEN]);
        random.norm(&path("output.LayerNorm"));
    }
    random.linear("bert.pooler.dense", [HIDDEN, HIDDEN]);
    random.linear("classifier", [HIDDEN, LABELS]);
    random.tensors
}

struct Random {
    normal: Normal,
    tensors: TensorMap,
}

impl Random {
    fn put(&mut self, key: &str, shape: &[usize], mean: f32, std: f32) {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| mean + std * self.normal.next()).collect();
        self.tensors.insert(key.into(), TensorData::new(values, shape));
    }

    fn linear(&mut self, path: &str, [d_in, d_out]: [usize; 2]) {
        let std = 1.0 / (d_in as f32).sqrt();
        self.put(&format!("{path}.weight"), &[d_out, d_in], 0.0, std);
        self.put(&format!("{path}.bias"), &[d_out], 0.0, 0.3);
    }

    fn norm(&mut self, path: &str) {
        self.put(&format!("{path}.weight"), &[HIDDEN], 1.0, 0.2);
        self.put(&format!("{path}.bias"), &[HIDDEN], 0.0, 0.2);
    }
}
