//! The embeddings of a stack of layers: tokens, positions and segments.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{Role, Rows, Site, SiteKind, Stage, Tokens};

use super::{FrozenEmbedding, FrozenNorm};
use crate::checkpoint::Loader;
use crate::forward::Run;
use crate::input::{Placed, Text};
use crate::{Cache, Error, Result};

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
    /// `[tokens, d]`; a method may have lengthened the text.
    pub hidden: Tensor<2>,
    /// Which tokens belong to which text.
    pub rows: Rows,
    /// By row, the position behind the text, if it is to be gone on from.
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
    pub fn forward(&self, text: &Text, packed: bool, run: Run<'_>) -> Result<EmbeddedText> {
        let segments = self.segments.as_ref().map(FrozenEmbedding::len);
        text.check(self.words.len(), segments)?;
        let seen = run.cache.filter(|cache| !cache.is_empty()).map(Cache::seen);
        let Placed { rows, ids, segments, next } = text.placed(seen.as_deref(), packed)?;
        let empty = rows.iter().position(|row| row.tokens() == 0);
        let words = self.words.forward(&ids, run.over(&rows));
        let words = if self.scale == 1.0 { words } else { words * self.scale };
        let tokens = Tokens { segments, ..Tokens::new(words, rows.clone()) };
        let read = rows.tokens();
        let Tokens { hidden, rows, segments } =
            run.hooks.tokens(Stage::Embedded, &self.site, tokens, &run.over(&rows).pass);
        let run = run.over(&rows);
        let mut sum = hidden;
        if let Some(table) = &self.segments {
            let segments = segments.unwrap_or_else(|| vec![0; rows.tokens()]);
            sum = sum + table.forward(&segments, run);
        }
        // Positions of a text as the model was given it, or of one that was lengthened or goes on.
        let plain = rows.tokens() == read && seen.is_none() && !text.counts_tokens();
        if let Some((table, places)) = self.places(&rows, plain.then_some(&ids[..]))? {
            sum = sum + table.forward(&places, run);
        }
        let hidden = match &self.norm {
            Some(norm) => norm.forward(sum, run),
            None => sum,
        };
        let hidden = run.pass.dropout(hidden, self.dropout);
        let before = rows.clone();
        let tokens = Tokens::new(hidden, rows.clone());
        let Tokens { hidden, rows, .. } =
            run.hooks.tokens(Stage::Input, &self.site, tokens, &run.pass);
        if let (Some(text), true, true) = (empty, run.cache.is_some(), rows.tokens() > read) {
            return Err(Error::Input(format!(
                "text {text} has only padding where the cache begins: what is put before a text \
                 goes before its first token"
            )));
        }
        // A method may have lengthened the text here too, behind a table of positions; without one,
        // the attentions count what it added.
        let counted = if matches!(self.positions, Positions::None) { &rows } else { &before };
        let next = counted.iter().zip(next).map(|(row, next)| {
            let last = (0..row.len()).rfind(|&place| row.has(place));
            last.map_or(next, |last| row.positions[last] + 1)
        });
        let next = next.collect();
        Ok(EmbeddedText { hidden, rows, next })
    }

    /// The table of positions, and the row of it for each token; `ids` are those of a text that is
    /// as the model was given it.
    fn places(
        &self,
        rows: &Rows,
        ids: Option<&[usize]>,
    ) -> Result<Option<(&FrozenEmbedding, Vec<usize>)>> {
        let (table, first) = match &self.positions {
            Positions::None => return Ok(None),
            Positions::Learned { table, first } => (table, *first),
            Positions::After { table, pad } => (table, pad + 1),
        };
        let pad = match &self.positions {
            Positions::After { pad, .. } => ids.map(|ids| (ids, *pad)),
            _ => None,
        };
        let mut places = Vec::with_capacity(rows.tokens());
        let mut reach = 0;
        for (number, row) in rows.iter().enumerate() {
            let mut counted = 0;
            for place in 0..row.len() {
                let position = row.shift
                    + match pad {
                        // As the reference does only for tokens that it is given: padding does not
                        // count, and has a row of its own.
                        Some((ids, pad)) if ids[rows.start(number) + place] == pad => {
                            places.push(pad);
                            continue;
                        }
                        Some(_) => {
                            counted += 1;
                            counted - 1
                        }
                        None => row.positions[place],
                    };
                if row.has(place) {
                    reach = reach.max(position + 1);
                }
                // Padding may lie beyond the table.
                places.push(first + position.min(self.limit - 1));
            }
        }
        if reach > self.limit {
            return Err(Error::Input(format!(
                "{reach} tokens, but the model has {} positions: truncate the texts",
                self.limit
            )));
        }
        Ok(Some((table, places)))
    }
}
