//! Task heads.

use burn::tensor::{DType, Device, Tensor, TensorData};
use peft_core::{Activation, FrozenWeight, Role, Row, Rows};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::blocks::{FrozenLinear, FrozenNorm, NormForm, Unembedding};
use crate::body::{Hidden, tokens_at};
use crate::checkpoint::{Loader, transposed};
use crate::forward::Run;
use crate::input::Text;
use crate::{Error, Logits, Result};

/// What turns hidden states into the model's output.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    /// The hidden states themselves.
    None,
    /// The labels of a sequence, from one of its tokens.
    Sequence(SequenceHead),
    /// From each token.
    Tokens { labels: Box<FrozenLinear>, dropout: f64 },
    /// From each token, to the words.
    LanguageModel { transform: Option<Box<Transform>>, decoder: Box<Unembedding> },
}

/// One token's state, dropout, perhaps a layer, dropout again, and the labels.
#[derive(Debug, Clone)]
pub(crate) struct SequenceHead {
    pub(crate) token: ReadToken,
    pub(crate) dense: Option<Box<(FrozenLinear, Activation)>>,
    pub(crate) labels: Box<FrozenLinear>,
    /// Before and after the layer.
    pub(crate) dropout: [f64; 2],
}

/// Which token stands for its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadToken {
    /// What stands first, a virtual token too.
    First,
    /// The last that is not `pad`; where the configuration has none, that the mask does not hide.
    Last { pad: Option<usize> },
    /// The last that is `eos`.
    LastOf { eos: usize },
}

impl ReadToken {
    /// Which token it is, among all in `rows`.
    fn of(self, text: &Text, rows: &Rows) -> Result<Vec<usize>> {
        let places = match self {
            Self::First => {
                // The reference reads padding where a text begins with it.
                return Ok((0..rows.len()).map(|number| rows.start(number)).collect());
            }
            Self::Last { pad } => text.last(|id, is_token| match pad {
                Some(pad) => id != pad,
                None => is_token,
            }),
            Self::LastOf { eos } => {
                let last = text.last(|id, _| id == eos);
                if let Some(row) = last.iter().position(Option::is_none) {
                    let lacks = format!("text {row} has no token {eos}, which ends one");
                    return Err(Error::Input(lacks));
                }
                last
            }
        };
        let token = |((number, row), place): ((usize, &Row), Option<usize>)| {
            // A token that the mask hides is not there where there is no padding.
            let place = place.unwrap_or(0).min(row.text.len() - 1);
            rows.start(number) + row.text[place]
        };
        Ok(rows.iter().enumerate().zip(places).map(token).collect())
    }
}

impl SequenceHead {
    /// The hidden states of a batch to `[batch, labels]`.
    fn forward(&self, hidden: &Hidden, text: &Text, run: Run<'_>) -> Result<Tensor<2>> {
        let Hidden { states, rows, .. } = hidden;
        let tokens = self.token.of(text, rows)?;
        let state = tokens_at(states.clone(), &tokens);
        let rows = rows.single(&tokens);
        let run = run.over(&rows);
        let [before, after] = self.dropout;
        let state = run.pass.dropout(state, before);
        let state = match &self.dense {
            Some(dense) => {
                let (layer, activation) = &**dense;
                activation.forward(layer.forward(state, run))
            }
            None => state,
        };
        Ok(self.labels.forward(run.pass.dropout(state, after), run))
    }
}

/// What a masked language model does before it compares with words: `norm(activation(h W + b))`.
#[derive(Debug, Clone)]
pub(crate) struct Transform {
    pub(crate) dense: FrozenLinear,
    pub(crate) activation: Activation,
    pub(crate) norm: FrozenNorm,
}

impl Transform {
    fn forward(&self, hidden: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        let inner = self.activation.forward(self.dense.forward(hidden, run));
        self.norm.forward(inner, run)
    }
}

impl Head {
    /// The one token that it reads of each text, among all in `rows`; `None` where it reads all.
    ///
    /// # Errors
    /// If a text lacks the token that stands for it.
    pub(crate) fn reads(&self, text: &Text, rows: &Rows) -> Result<Option<Vec<usize>>> {
        match self {
            Self::Sequence(head) => head.token.of(text, rows).map(Some),
            _ => Ok(None),
        }
    }

    /// The output for a text as a whole, `[batch, labels]`; `None` where each token has an output.
    ///
    /// # Errors
    /// If a text lacks the token that stands for it.
    pub(crate) fn of_texts(
        &self,
        hidden: &Hidden,
        text: &Text,
        run: Run<'_>,
    ) -> Result<Option<Tensor<2>>> {
        match self {
            Self::Sequence(head) => head.forward(hidden, text, run).map(Some),
            _ => Ok(None),
        }
    }

    /// The output of each token, `[tokens, outputs]`.
    ///
    /// # Panics
    /// If the output is that of a sequence.
    pub(crate) fn of_tokens(&self, hidden: Tensor<2>, run: Run<'_>) -> Logits {
        match self {
            Self::None => hidden.into(),
            Self::Sequence(_) => panic!("the head is of a sequence, not of tokens"),
            Self::Tokens { labels, dropout } => {
                labels.forward(run.pass.dropout(hidden, *dropout), run).into()
            }
            Self::LanguageModel { transform, decoder } => {
                let hidden = match transform {
                    Some(transform) => transform.forward(hidden, run),
                    None => hidden,
                };
                decoder.forward(hidden, run)
            }
        }
    }
}

/// The layer that gives the start and the end of an answer, as transformers calls it.
pub(crate) const ANSWER_LAYER: &str = "qa_outputs";

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
                (transposed(weight, &device), Tensor::from_data(bias, (&device, DType::F32)))
            }
            None => (self.random([d_in, d_out], &device), Tensor::zeros([d_out], &device)),
        };
        FrozenLinear::new(loader, path, Role::Head, None, weight.into(), Some(bias))
    }

    /// A linear layer `[d_in, d_out]` without a bias.
    pub(crate) fn unbiased(
        &mut self,
        loader: &mut Loader<'_>,
        path: &str,
        [d_in, d_out]: [usize; 2],
    ) -> FrozenLinear {
        let device = loader.device().clone();
        let weight = match loader.head(path, [("weight", &[d_out, d_in])]) {
            Some([weight]) => transposed(weight, &device),
            None => self.random([d_in, d_out], &device),
        };
        FrozenLinear::new(loader, path, Role::Head, None, weight.into(), None)
    }

    /// The table of words `[words, d]` of a language model's head.
    pub(crate) fn table(
        &mut self,
        loader: &mut Loader<'_>,
        path: &str,
        shape: [usize; 2],
    ) -> FrozenWeight {
        let found = loader.head_table(path, shape);
        found.unwrap_or_else(|| self.random(shape, loader.device()).into())
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
        let [gain, bias] = loader.norm_names(path);
        let (gain, bias) = match loader.head(path, [(gain, &[d]), (bias, &[d])]) {
            Some(found) => {
                let [gain, bias] = found.map(|data| Tensor::from_data(data, (&device, DType::F32)));
                (gain, bias)
            }
            None => (Tensor::ones([d], &device), Tensor::zeros([d], &device)),
        };
        let form = NormForm::Layer(epsilon);
        FrozenNorm::new(loader, path, Role::Head, None, gain, Some(bias), form)
    }

    /// A bias `path.bias`, `[d]`.
    pub(crate) fn bias(&mut self, loader: &mut Loader<'_>, path: &str, d: usize) -> Tensor<1> {
        let device = loader.device().clone();
        match loader.head(path, [("bias", &[d])]) {
            Some([bias]) => Tensor::from_data(bias, (&device, DType::F32)),
            None => Tensor::zeros([d], &device),
        }
    }

    fn random(&mut self, shape: [usize; 2], device: &Device) -> Tensor<2> {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| self.normal()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f32 {
        let (u, v): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
        (self.std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}
