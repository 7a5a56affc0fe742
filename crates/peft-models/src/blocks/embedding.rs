//! The embeddings of a stack of layers: tokens, positions and segments.

use std::sync::Arc;

use burn::tensor::{Bool, Int, Tensor, TensorData};
use peft_core::{Embedded, Role, Site, SiteKind};

use super::{FrozenEmbedding, FrozenNorm, Pass};
use crate::checkpoint::Loader;
use crate::input::Text;
use crate::{Error, Result};

/// How a token's position gets into its embedding.
#[derive(Debug, Clone)]
pub enum Positions {
    /// Not at all; attentions see to it.
    None,
    /// From a table, where position 0 lies at `first`.
    Learned {
        /// The table.
        table: FrozenEmbedding,
        /// Rows before that of position 0.
        first: usize,
    },
    /// From a table in which position 0 lies behind `pad`; padding does not count (RoBERTa).
    After {
        /// The table.
        table: FrozenEmbedding,
        /// The padding token, which is also the row of the table that padding gets.
        pad: usize,
    },
}

/// `norm(s · word + segment + position)`.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Where they meet methods.
    pub site: Arc<Site>,
    /// The table of words.
    pub words: FrozenEmbedding,
    scale: f64,
    positions: Positions,
    segments: Option<FrozenEmbedding>,
    norm: Option<FrozenNorm>,
    limit: usize,
    dropout: f64,
}

/// What the first layer is given.
#[derive(Debug)]
pub struct EmbeddedText {
    /// `[batch, length, d]`; a method may have lengthened the text.
    pub hidden: Tensor<3>,
    /// `[batch, length]`, true where there is a token; `None` where that is everywhere.
    pub mask: Option<Tensor<2, Bool>>,
    /// `[rows, length]`, the positions of all rows, or of all in one.
    pub positions: Tensor<2, Int>,
    /// By row, or for all in one, how many positions are taken before the first.
    pub taken: Vec<usize>,
    /// All positions are less than this.
    pub reach: usize,
    /// By row of the text, the position behind it, if the text is to be gone on from.
    pub next: Vec<usize>,
}

impl Embeddings {
    /// Embeddings of these words without anything else, for texts of any length; `limit` is what
    /// the model was made for.
    pub fn new(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        words: FrozenEmbedding,
        limit: usize,
    ) -> Self {
        let d = words.weight().dims()[1];
        let site = loader.base().place(path, SiteKind::Sublayer, role, None, d);
        let positions = Positions::None;
        let (segments, norm) = (None, None);
        Self { site, words, scale: 1.0, positions, segments, norm, limit, dropout: 0.0 }
    }

    /// With positions from a table, which sets the limit.
    pub fn with_positions(mut self, positions: Positions) -> Self {
        self.limit = match &positions {
            Positions::None => self.limit,
            Positions::Learned { table, first } => table.len().saturating_sub(*first),
            Positions::After { table, pad } => table.len().saturating_sub(pad + 1),
        };
        Self { positions, ..self }
    }

    /// With a table of segments.
    pub fn with_segments(self, segments: FrozenEmbedding) -> Self {
        Self { segments: Some(segments), ..self }
    }

    /// With a norm.
    pub fn with_norm(self, norm: FrozenNorm) -> Self {
        Self { norm: Some(norm), ..self }
    }

    /// With a factor on the embeddings of words.
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// With dropout.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// The longest text, in tokens.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What the first layer is given.
    ///
    /// # Errors
    /// If the text is longer than the table of positions, or has an index outside its table.
    pub fn forward(&self, text: &Text, pass: Pass<'_>) -> Result<EmbeddedText> {
        let segments = self.segments.as_ref().map(FrozenEmbedding::len);
        text.check(self.words.len(), segments)?;
        let tokens = text.ids.dims()[1];
        let words = self.words.forward(text.ids.clone(), pass);
        let words = if self.scale == 1.0 { words } else { words * self.scale };
        let cache = pass.cache.filter(|cache| !cache.is_empty());
        let continued = cache.map(|cache| text.continued(cache.next())).transpose()?;
        let text = continued.as_ref().unwrap_or(text);
        let continues = continued.is_some();
        let embedded = Embedded {
            segments: text.segments.clone(),
            continues,
            ..Embedded::new(words, text.mask.clone())
        };
        let Embedded { hidden, mask, segments, shift, .. } = pass.hooks.embed(&self.site, embedded);
        let [batch, length, _] = hidden.dims();
        let taken = match &shift[..] {
            // All rows alike: one row of positions serves all.
            [first, rest @ ..] if rest.iter().all(|s| s == first) => vec![*first],
            [] => vec![0],
            _ => {
                assert_eq!(shift.len(), batch, "a shift for each row");
                shift
            }
        };
        let last = text.max_position().unwrap_or(tokens - 1) + length - tokens;
        let reach = last + 1 + taken.iter().max().copied().unwrap_or(0);
        if !matches!(self.positions, Positions::None) && reach > self.limit {
            return Err(Error::Input(format!(
                "{reach} tokens, but the model has {} positions: truncate the texts",
                self.limit
            )));
        }
        let positions = positions(text, [batch, length], mask.as_ref(), &taken);
        let mut sum = hidden;
        if let Some(table) = &self.segments {
            let first = || Tensor::zeros([1, 1], &text.ids.device());
            sum = sum + table.forward(segments.unwrap_or_else(first), pass);
        }
        if let Some(embedded) = self.embed_positions(text, batch, &taken, positions.clone(), pass) {
            sum = sum + embedded;
        }
        let hidden = match &self.norm {
            Some(norm) => norm.forward(sum, pass),
            None => sum,
        };
        let hidden = pass.dropout(hidden, self.dropout);
        let read = mask.clone();
        let embedded = Embedded { continues, ..Embedded::new(hidden, mask) };
        let Embedded { hidden, mask, .. } = pass.hooks.layers_input(&self.site, embedded);
        // A method may have lengthened the text here too, behind a table of positions; without one,
        // the attentions count what it added.
        let (counted, counted_mask) = match self.positions {
            Positions::None => (hidden.dims()[1], mask.as_ref()),
            _ => (length, read.as_ref()),
        };
        let shape = [batch, counted];
        let next = match pass.cache {
            Some(_) => text.next_positions(shape, counted_mask)?,
            None => Vec::new(),
        };
        let positions = match counted - length {
            0 => positions,
            _ => self::positions(text, shape, counted_mask, &taken),
        };
        let reach = reach + counted - length;
        Ok(EmbeddedText { hidden, mask, positions, taken, reach, next })
    }

    /// The rows of the table of positions, `[rows, length, d]`.
    fn embed_positions(
        &self,
        text: &Text,
        batch: usize,
        taken: &[usize],
        positions: Tensor<2, Int>,
        pass: Pass<'_>,
    ) -> Option<Tensor<3>> {
        let (table, rows) = match &self.positions {
            Positions::None => return None,
            Positions::Learned { table, first } => (table, positions + *first as i64),
            // As the reference does for embeddings that it is given: padding counts.
            Positions::After { table, pad }
                if text.positions.is_some() || positions.dims()[1] != text.ids.dims()[1] =>
            {
                (table, positions + (pad + 1) as i64)
            }
            Positions::After { table, pad } => {
                let is_token = text.ids.clone().not_equal_elem(*pad as i64).int();
                let counted = is_token.clone().cumsum(1);
                let (counted, is_token) = (repeated(counted, batch), repeated(is_token, batch));
                let taken = column(taken, &text.ids);
                (table, (counted + taken) * is_token + *pad as i64)
            }
        };
        Some(table.forward(rows, pass))
    }
}

/// The positions of a text that methods made `length` long: `[rows, length]`.
fn positions(
    text: &Text,
    [batch, length]: [usize; 2],
    mask: Option<&Tensor<2, Bool>>,
    taken: &[usize],
) -> Tensor<2, Int> {
    let counted = match &text.positions {
        None => {
            let device = text.ids.device();
            Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>()
        }
        Some(own) if own.dims()[1] == length => repeated(own.clone(), batch),
        Some(_) => text.lengthened_positions([batch, length], mask),
    };
    counted + column(taken, &text.ids)
}

/// `[rows, 1]`.
fn column(values: &[usize], like: &Tensor<2, Int>) -> Tensor<2, Int> {
    let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1]), &like.device())
}

/// As often as a method repeated the batch.
fn repeated(rows: Tensor<2, Int>, batch: usize) -> Tensor<2, Int> {
    let times = batch / rows.dims()[0];
    if times == 1 { rows } else { Tensor::cat(vec![rows; times], 0) }
}
