//! The embeddings of an encoder: tokens, segments and positions.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use peft_core::{Embedded, Role, Site, SiteKind};

use super::{FrozenEmbedding, FrozenNorm, Pass};
use crate::architectures::BertConfig;
use crate::checkpoint::Loader;
use crate::{Error, ModelConfig, ModelInput, Result};

/// Where position 0 of a text lies in the table of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// At 0, and padding counts (BERT).
    FromZero,
    /// After `pad`, and padding does not count (RoBERTa).
    After {
        /// The padding token, which is also the row of the table that padding gets.
        pad: usize,
    },
}

/// `norm(word + segment + position)`.
#[derive(Debug, Clone)]
pub struct Embeddings {
    site: Arc<Site>,
    words: FrozenEmbedding,
    positions: FrozenEmbedding,
    segments: FrozenEmbedding,
    norm: FrozenNorm,
    start: Positions,
    limit: usize,
    vocab: usize,
    dropout: f64,
}

impl Embeddings {
    /// Loads the tables and the norm under `path`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        config: &ModelConfig,
        fields: &BertConfig,
        start: Positions,
    ) -> Result<Self> {
        let d = config.hidden_size;
        let mut table = |name: &str, role, entries| {
            FrozenEmbedding::load(loader, &format!("{path}.{name}"), role, [entries, d])
        };
        let words = table("word_embeddings", Role::WordEmbedding, config.vocab_size)?;
        let positions =
            table("position_embeddings", Role::PositionEmbedding, fields.max_position_embeddings)?;
        let segments =
            table("token_type_embeddings", Role::TokenTypeEmbedding, fields.type_vocab_size)?;
        let norm_path = format!("{path}.LayerNorm");
        let epsilon = fields.layer_norm_eps;
        let norm = FrozenNorm::load(loader, &norm_path, Role::EmbeddingNorm, None, d, epsilon)?;
        let site = loader.base().place(path, SiteKind::Sublayer, Role::Embeddings, None, d);
        let limit = match start {
            Positions::FromZero => fields.max_position_embeddings,
            Positions::After { pad } => fields.max_position_embeddings - pad - 1,
        };
        let (vocab, dropout) = (config.vocab_size, fields.hidden_dropout_prob);
        Ok(Self { site, words, positions, segments, norm, start, limit, vocab, dropout })
    }

    /// The table of words.
    pub fn words(&self) -> &FrozenEmbedding {
        &self.words
    }

    /// Where the embeddings meet methods.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The longest text, in tokens.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The hidden states before the first layer, and the mask, which a method may have lengthened.
    ///
    /// # Errors
    /// If the input is longer than the table of positions, or has an index outside its table.
    pub fn forward(&self, input: &ModelInput, pass: Pass<'_>) -> Result<Embedded> {
        input.check(self.vocab, self.segments.len())?;
        let tokens = input.ids().dims()[1];
        let embedded = Embedded {
            segments: input.segments(),
            ..Embedded::new(self.words.forward(input.ids()), input.mask())
        };
        let Embedded { hidden, mask, segments, shift } = pass.hooks.embed(&self.site, embedded);
        let [batch, length, _] = hidden.dims();
        let needed = length + shift.iter().max().copied().unwrap_or(0);
        if needed > self.limit {
            return Err(Error::Input(format!(
                "{needed} tokens, but the model has {} positions: truncate the texts",
                self.limit
            )));
        }
        let device = hidden.device().without_autodiff();
        let shift = match &shift[..] {
            // All rows alike: one row of positions serves all.
            [first, rest @ ..] if rest.iter().all(|s| s == first) => vec![*first],
            [] => vec![0],
            _ => {
                assert_eq!(shift.len(), batch, "a shift for each row");
                shift
            }
        };
        let rows = shift.len();
        let shift: Vec<i64> = shift.into_iter().map(|shift| shift as i64).collect();
        let shift = Tensor::<2, Int>::from_data(TensorData::new(shift, [rows, 1]), &device);
        let in_order = |from: usize| {
            let indices = Tensor::<1, Int>::arange(from as i64..(from + length) as i64, &device);
            self.positions.forward(indices.unsqueeze::<2>() + shift.clone())
        };
        let positions = match self.start {
            Positions::FromZero => in_order(0),
            // As the reference does for embeddings that it is given: padding counts.
            Positions::After { pad } if length != tokens => in_order(pad + 1),
            Positions::After { pad } => {
                let is_token = input.ids().not_equal_elem(pad as i64).int();
                let counted = is_token.clone().cumsum(1);
                // A method may have repeated the batch.
                let repeats = batch / counted.dims()[0];
                let repeated = |x: Tensor<2, Int>| Tensor::cat(vec![x; repeats], 0);
                let (counted, is_token) = (repeated(counted), repeated(is_token));
                self.positions.forward((counted + shift) * is_token + pad as i64)
            }
        };
        let segments = match segments {
            Some(segments) => self.segments.forward(segments),
            None => self.segments.forward(Tensor::zeros([1, 1], &device)),
        };
        let hidden = self.norm.forward(hidden + segments + positions, pass);
        let embedded = Embedded::new(pass.dropout(hidden, self.dropout), mask);
        Ok(pass.hooks.layers_input(&self.site, embedded))
    }
}
