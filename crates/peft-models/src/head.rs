//! Task heads.

use burn::tensor::{DType, Tensor, TensorData, activation::tanh};
use peft_core::{Activation, Role};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::blocks::{FrozenLinear, FrozenNorm, Pass, Unembedding};
use crate::checkpoint::Loader;

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
    /// From each token, to the words.
    LanguageModel { transform: Option<Box<Transform>>, decoder: Box<Unembedding> },
}

/// What a masked language model does before it compares with words: `norm(activation(h W + b))`.
#[derive(Debug, Clone)]
pub(crate) struct Transform {
    pub(crate) dense: FrozenLinear,
    pub(crate) activation: Activation,
    pub(crate) norm: FrozenNorm,
}

impl Transform {
    fn forward(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        let inner = self.activation.forward(self.dense.forward(hidden, pass));
        self.norm.forward(inner, pass)
    }
}

impl Head {
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
            Self::LanguageModel { transform, decoder } => {
                let hidden = match transform {
                    Some(transform) => transform.forward(hidden, pass),
                    None => hidden,
                };
                decoder.forward(hidden, pass)
            }
        }
    }
}

/// Heads that a checkpoint may lack: then weights are of `N(0, std)`, biases 0 and gains 1, from a
/// seed of their own so that they do not depend on anything else that is random.
pub(crate) struct NewHead {
    random: StdRng,
    std: f64,
}

impl NewHead {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), std: 0.02 }
    }

    /// With weights of `N(0, std)`.
    pub(crate) fn with_std(mut self, std: f64) -> Self {
        self.std = std;
        self
    }

    /// A linear layer `[d_in, d_out]` with a bias.
    pub(crate) fn linear(
        &mut self,
        loader: &mut Loader<'_>,
        path: &str,
        [d_in, d_out]: [usize; 2],
    ) -> FrozenLinear {
        let device = loader.device().clone();
        let found = loader.head(path, [("weight", &[d_out, d_in]), ("bias", &[d_out])]);
        let (weight, bias) = match found {
            Some([weight, bias]) => {
                let weight = Tensor::<2>::from_data(weight, (&device, DType::F32)).transpose();
                (
                    Tensor::from_data(weight.into_data(), &device),
                    Tensor::from_data(bias, (&device, DType::F32)),
                )
            }
            None => {
                let values: Vec<f32> = (0..d_in * d_out).map(|_| self.normal()).collect();
                let data = TensorData::new(values, [d_in, d_out]);
                (Tensor::from_data(data, &device), Tensor::zeros([d_out], &device))
            }
        };
        FrozenLinear::new(loader, path, Role::Head, None, weight, Some(bias))
    }

    /// A layer norm over `d`.
    pub(crate) fn norm(
        &mut self,
        loader: &mut Loader<'_>,
        path: &str,
        d: usize,
        epsilon: f64,
    ) -> FrozenNorm {
        let device = loader.device().clone();
        let old = loader.has(&format!("{path}.gamma"));
        let (gain, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let (gain, bias) = match loader.head(path, [(gain, &[d]), (bias, &[d])]) {
            Some(found) => {
                let [gain, bias] = found.map(|data| Tensor::from_data(data, (&device, DType::F32)));
                (gain, bias)
            }
            None => (Tensor::ones([d], &device), Tensor::zeros([d], &device)),
        };
        FrozenNorm::new(loader, path, Role::Head, None, [gain, bias], epsilon)
    }

    /// A bias `path.bias`, `[d]`.
    pub(crate) fn bias(&mut self, loader: &mut Loader<'_>, path: &str, d: usize) -> Tensor<1> {
        let device = loader.device().clone();
        match loader.head(path, [("bias", &[d])]) {
            Some([bias]) => Tensor::from_data(bias, (&device, DType::F32)),
            None => Tensor::zeros([d], &device),
        }
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f32 {
        let (u, v): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
        (self.std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}
