//! Context-aware prompt tuning: examples as a prompt, whose embeddings may move a little.

mod config;

pub use config::CptConfig;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use peft_core::{
    Base, Error, Exchange, Hooks, InitContext, Layout, Method, Pass, Piece, Result, Role, Site,
    Stage, StepContext, Tokens,
};

use crate::model::{ModelDimensions, embeddings, words};
use crate::start;

/// Context-aware prompt tuning (Blau et al. 2024, arXiv 2410.17222): before the text stand the embeddings of
/// a context, examples with their answers, each moved by a learned `δ` of bounded length:
///
/// ```text
/// X' = [E + δ; X]      E, δ: [L, d]      ‖δ_i‖ ≤ ε_i √(d / 2048)
/// ```
///
/// `ε_i` depends on what the token is; one of an answer does not move. After each step a longer `δ_i` is cut
/// to its bound.
///
/// Created with [`CptConfig`].
#[derive(Module, Debug)]
pub struct Cpt {
    /// `E`, `[L, d]`, frozen; `E + δ` where it was read from a file.
    embeddings: Param<Tensor<2>>,
    /// `δ`, `[L, d]`.
    pub delta: Param<Tensor<2>>,
    /// The bounds, `[L]`.
    #[module(skip)]
    epsilons: Vec<f64>,
}

impl Cpt {
    fn new(config: &CptConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let d = embeddings(base, "context-aware prompt tuning")?.d_out();
        ModelDimensions::check("token_dim", config.model.token_dim, d)?;
        if base.is_encoder_decoder() {
            let expected = "is for a model without an encoder beside a decoder";
            return Err(Error::config("cpt_token_ids", "(given)", expected));
        }
        let tokens = config.context();
        let table = words(base).ok_or_else(|| {
            Error::config("cpt_token_ids", "(given)", "needs a model with a table of words")
        })?;
        if let Some(outside) = tokens.iter().find(|token| **token >= table.d_in()) {
            let expected = format!("the model's vocabulary has {} entries, from 0", table.d_in());
            return Err(Error::config("cpt_token_ids", outside, expected));
        }
        let embeddings = start::constant(start::rows(base, table, &tokens, device));
        let delta = Param::from_tensor(Tensor::zeros([tokens.len(), d], device));
        Ok(Self { embeddings, delta, epsilons: config.epsilons(d) })
    }

    /// The prompt, `[L, d]`.
    pub fn prompt(&self) -> Tensor<2> {
        // What may not move has no gradient either.
        let moves = self.epsilons.iter().map(|epsilon| if *epsilon > 0.0 { 1.0f32 } else { 0.0 });
        let moves = self.column(moves.collect());
        self.embeddings.val() + self.delta.val() * moves
    }

    /// `[L, 1]`, a value for each token.
    fn column(&self, values: Vec<f32>) -> Tensor<2> {
        let shape = [values.len(), 1];
        let device = self.embeddings.val().device().without_autodiff();
        Tensor::from_data(TensorData::new(values, shape), &device)
    }
}

impl Hooks for Cpt {
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        if stage != Stage::Embedded || site.role == Role::DecoderEmbeddings {
            return tokens;
        }
        tokens.assembled(&[Piece::Virtual(self.prompt()), Piece::Text])
    }
}

impl Method for Cpt {
    /// In a file the two are one.
    fn exchange(&mut self, file: &mut Exchange<'_>, _base: &Base) {
        let (own, trains) = (self.prompt().into_data(), self.delta.is_require_grad());
        let device = self.embeddings.lazy_device();
        let mut prompt = Param::from_tensor(Tensor::<2>::from_data(own.clone(), &device))
            .set_require_grad(trains);
        file.param("prompt_embeddings", &mut prompt, Layout::AsIs);
        let read = prompt.val().into_data();
        if read != own {
            self.embeddings = start::constant(Tensor::from_data(read, &device));
            self.delta = self.delta.clone().map(|delta| {
                Tensor::zeros(delta.shape(), &delta.device()).set_require_grad(trains)
            });
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it lengthens the input, which no weight or bias can express".into())
    }

    fn after_step(&mut self, _context: &StepContext<'_>) {
        let bounds = self.column(self.epsilons.iter().map(|epsilon| *epsilon as f32).collect());
        self.delta = self.delta.clone().map(|delta| {
            let device = delta.device();
            let delta = delta.detach();
            let norms = delta.clone().square().sum_dim(1).sqrt();
            // One of no length stays as it is.
            let longest = norms.max_pair(bounds.clone()).clamp_min(f32::MIN_POSITIVE);
            let cut = delta * (bounds.clone() / longest);
            Tensor::from_data(cut.into_data(), &device).require_grad()
        });
    }

    fn virtual_tokens(&self) -> usize {
        self.epsilons.len()
    }
}
