//! Task heads.

use burn::tensor::{DType, Tensor, activation::tanh};
use peft_core::Role;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::blocks::{FrozenLinear, Pass};
use crate::checkpoint::Loader;
use crate::config::Architecture;
use crate::{EncoderConfig, Result, Task};

/// What turns hidden states `[batch, tokens, d]` into the model's output.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    /// The hidden states themselves.
    None,
    /// From the first token: a layer with tanh, dropout, and the labels.
    Sequence {
        dense: Box<FrozenLinear>,
        labels: Box<FrozenLinear>,
        dropout: f64,
        dropout_first: bool,
    },
    /// From each token.
    Tokens { labels: Box<FrozenLinear>, dropout: f64 },
}

impl Head {
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        config: &EncoderConfig,
        task: Task,
        seed: u64,
    ) -> Result<Self> {
        let d = config.hidden_size;
        let dropout = config.classifier_dropout.unwrap_or(config.hidden_dropout_prob);
        let mut new =
            NewHead { random: StdRng::seed_from_u64(seed), std: config.initializer_range };
        Ok(match (task, config.model_type) {
            (Task::Encode, _) => Self::None,
            (Task::ClassifyTokens { labels }, _) => {
                Self::Tokens { labels: new.load(loader, "classifier", [d, labels]).into(), dropout }
            }
            (Task::ClassifySequence { labels }, Architecture::Bert) => Self::Sequence {
                // The pooler is the encoder's: a random frozen one would be of no use.
                dense: FrozenLinear::load(loader, "bert.pooler.dense", Role::Pooler, None, [d, d])?
                    .into(),
                labels: new.load(loader, "classifier", [d, labels]).into(),
                dropout,
                dropout_first: false,
            },
            (
                Task::ClassifySequence { labels },
                Architecture::Roberta | Architecture::XlmRoberta,
            ) => Self::Sequence {
                dense: new.load(loader, "classifier.dense", [d, d]).into(),
                labels: new.load(loader, "classifier.out_proj", [d, labels]).into(),
                dropout,
                dropout_first: true,
            },
        })
    }

    pub(crate) fn forward(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        match self {
            Self::None => hidden,
            Self::Tokens { labels, dropout } => {
                labels.forward(pass.dropout(hidden, *dropout), pass)
            }
            Self::Sequence { dense, labels, dropout, dropout_first } => {
                let first = hidden.narrow(1, 0, 1);
                let first = if *dropout_first { pass.dropout(first, *dropout) } else { first };
                let pooled = tanh(dense.forward(first, pass));
                labels.forward(pass.dropout(pooled, *dropout), pass)
            }
        }
    }
}

/// Heads that a checkpoint lacks: `N(0, std)`, bias 0, from a seed of their own so that they do
/// not depend on anything else that is random.
struct NewHead {
    random: StdRng,
    std: f64,
}

impl NewHead {
    fn load(&mut self, loader: &mut Loader<'_>, path: &str, shape: [usize; 2]) -> FrozenLinear {
        let device = loader.device().clone();
        let (weight, bias) = match loader.head(path, shape) {
            Some([weight, bias]) => {
                let weight = Tensor::<2>::from_data(weight, (&device, DType::F32)).transpose();
                (
                    Tensor::from_data(weight.into_data(), &device),
                    Tensor::from_data(bias, (&device, DType::F32)),
                )
            }
            None => {
                let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| self.normal()).collect();
                let data = burn::tensor::TensorData::new(values, shape);
                (Tensor::from_data(data, &device), Tensor::zeros([shape[1]], &device))
            }
        };
        FrozenLinear::new(loader, path, Role::Head, None, weight, Some(bias))
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f32 {
        let (u, v): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
        (self.std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}
