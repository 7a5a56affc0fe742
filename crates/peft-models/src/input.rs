//! Batches of token indices.

use std::sync::Arc;

use burn::tensor::{DType, Device, TensorData};
use peft_core::{Row, Rows, Words};

use crate::cache::Seen;
use crate::{Error, Result};

/// A batch for a model, known on the host.
#[derive(Debug, Clone)]
pub struct ModelInput {
    text: Text,
    decoder: Option<Text>,
}

/// A batch of texts.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// Texts, and tokens in the longest, padding included.
    shape: [usize; 2],
    /// By row.
    ids: Vec<usize>,
    is_token: Vec<bool>,
    segments: Option<Vec<usize>>,
    /// Whether positions count tokens only, not padding before them.
    tokens_only: bool,
    device: Device,
}

/// The tokens of a text as a model runs on them.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Which tokens belong to which text.
    pub(crate) rows: Rows,
    /// The index of each.
    pub(crate) ids: Vec<usize>,
    /// The segment of each.
    pub(crate) segments: Option<Vec<usize>>,
    /// By row, the position of what comes next where the row has no token here.
    pub(crate) next: Vec<usize>,
}

impl ModelInput {
    /// A batch of texts as token indices, filled up with `pad`; `segments` are the segment indices
    /// of pairs, of the same lengths.
    ///
    /// # Errors
    /// If there is no text, a text without tokens, or segments of another length.
    pub fn from_rows(
        rows: &[&[u32]],
        segments: Option<&[&[u32]]>,
        pad: usize,
        device: &Device,
    ) -> Result<Self> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        if longest == 0 || rows.iter().any(|row| row.is_empty()) {
            return Err(Error::Input("a text has no tokens".into()));
        }
        let filled = |rows: &[&[u32]], fill: usize| -> Vec<usize> {
            let fill_up = |row: &[u32]| {
                let tail = std::iter::repeat_n(fill, longest - row.len());
                row.iter().map(|&index| index as usize).chain(tail).collect::<Vec<_>>()
            };
            rows.iter().flat_map(|row| fill_up(row)).collect()
        };
        if let Some(segments) = segments
            && !segments.iter().map(|s| s.len()).eq(rows.iter().map(|r| r.len()))
        {
            return Err(Error::Input("segments and tokens have different lengths".into()));
        }
        let is_token = rows.iter().flat_map(|row| (0..longest).map(|place| place < row.len()));
        let text = Text {
            shape: [rows.len(), longest],
            ids: filled(rows, pad),
            is_token: is_token.collect(),
            segments: segments.map(|segments| filled(segments, 0)),
            tokens_only: false,
            device: device.clone().without_autodiff(),
        };
        Ok(Self { text, decoder: None })
    }

    /// A batch from `[batch, tokens]` arrays: indices, 1 where there is a token, and segments.
    /// Positions are counted from the first index on, padding included; where padding comes first,
    /// see [`counting_tokens`](Self::counting_tokens).
    ///
    /// # Errors
    /// If the arrays are not whole numbers of one shape, or an index is negative.
    pub fn from_data(
        ids: TensorData,
        mask: Option<TensorData>,
        segments: Option<TensorData>,
        device: &Device,
    ) -> Result<Self> {
        let shape = ids.shape().to_vec();
        let [batch, tokens] = shape[..] else {
            return Err(Error::Input(format!(
                "input_ids have shape {shape:?}, not [batch, tokens]"
            )));
        };
        if batch * tokens == 0 {
            return Err(Error::Input("a text has no tokens".into()));
        }
        let numbers = |name: &str, data: TensorData| -> Result<Vec<usize>> {
            if data.shape().to_vec() != shape {
                let found = data.shape().to_vec();
                return Err(Error::Input(format!("{name} has shape {found:?}, not {shape:?}")));
            }
            // What no i64 can be is refused, not converted.
            if data.dtype().is_float() {
                let index = |value: f64| match value.fract() == 0.0 && (0.0..1e15).contains(&value)
                {
                    true => Ok(value as usize),
                    false => Err(Error::Input(format!("{name} has {value}"))),
                };
                return data.iter::<f64>().map(index).collect();
            }
            let index = |value: i128| {
                usize::try_from(value).map_err(|_| Error::Input(format!("{name} has {value}")))
            };
            match data.dtype() {
                DType::U64 => data.iter::<u64>().map(|value| index(value.into())).collect(),
                _ => data.iter::<i64>().map(|value| index(value.into())).collect(),
            }
        };
        let ids = numbers("input_ids", ids)?;
        let is_token = match mask {
            Some(mask) => numbers("attention_mask", mask)?.into_iter().map(|m| m != 0).collect(),
            None => vec![true; ids.len()],
        };
        let segments = segments.map(|segments| numbers("token_type_ids", segments)).transpose()?;
        let (shape, device) = ([batch, tokens], device.clone().without_autodiff());
        let text = Text { shape, ids, is_token, segments, tokens_only: false, device };
        Ok(Self { text, decoder: None })
    }

    /// With what the decoder of an encoder-decoder is given.
    ///
    /// # Errors
    /// If it is another number of texts.
    pub fn with_decoder(self, decoder: Self) -> Result<Self> {
        let (own, others) = (self.text.shape[0], decoder.text.shape[0]);
        if own != others {
            return Err(Error::Input(format!("{own} texts, and {others} for the decoder")));
        }
        Ok(Self { decoder: Some(decoder.text), ..self })
    }

    /// With positions that count tokens only, so that padding before a text does not move them: for
    /// texts that are to be continued.
    pub fn counting_tokens(mut self) -> Self {
        self.text.tokens_only = true;
        if let Some(decoder) = &mut self.decoder {
            decoder.tokens_only = true;
        }
        self
    }

    /// The same texts several times, one after another.
    pub fn repeated(&self, times: usize) -> Self {
        let repeat = |text: &Text| Text {
            shape: [text.shape[0] * times, text.shape[1]],
            ids: text.ids.repeat(times),
            is_token: text.is_token.repeat(times),
            segments: text.segments.as_ref().map(|segments| segments.repeat(times)),
            ..text.clone()
        };
        Self { text: repeat(&self.text), decoder: self.decoder.as_ref().map(repeat) }
    }

    /// Texts and tokens in the longest: `[batch, tokens]`.
    pub fn shape(&self) -> [usize; 2] {
        self.text.shape
    }

    /// The same of the texts that a model has an output for: the decoder's, where there are any.
    pub fn output_shape(&self) -> [usize; 2] {
        self.output_text().shape
    }

    pub(crate) fn text(&self) -> &Text {
        &self.text
    }

    pub(crate) fn decoder(&self) -> Option<&Text> {
        self.decoder.as_ref()
    }

    pub(crate) fn output_text(&self) -> &Text {
        self.decoder.as_ref().unwrap_or(&self.text)
    }
}

impl Text {
    /// An index outside its table would read another row, or none, without a word.
    pub(crate) fn check(&self, vocab: usize, segments: Option<usize>) -> Result<()> {
        let max_id = self.ids.iter().max().copied().unwrap_or(0);
        if max_id >= vocab {
            return Err(Error::Input(format!(
                "token {max_id} is outside the vocabulary of {vocab}: do tokenizer and model \
                 belong together?"
            )));
        }
        let max_segment = self.segments.iter().flatten().max().copied().unwrap_or(0);
        // Without a table, a model reads none.
        if let Some(segments) = segments
            && max_segment >= segments
        {
            return Err(Error::Input(format!(
                "segment {max_segment}, but the model has {segments}"
            )));
        }
        Ok(())
    }

    /// Whether every text begins at the first place, and padding is behind it.
    pub(crate) fn is_padded_behind(&self) -> bool {
        let mut rows = self.is_token.chunks(self.shape[1]);
        rows.all(|row| row[0] && row.is_sorted_by(|token, next| *token || !*next))
    }

    /// Whether positions count what is there, not places: a text that goes on is not read as one
    /// that begins.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.tokens_only
    }

    /// The tokens, going on from those seen before, if there are any; without padding if they are
    /// to be packed.
    ///
    /// # Errors
    /// If another number of rows was seen.
    pub(crate) fn placed(&self, seen: Option<&[Seen]>, packed: bool) -> Result<Placed> {
        let [batch, tokens] = self.shape;
        if let Some(seen) = seen
            && seen.len() != batch
        {
            let kept = seen.len();
            return Err(Error::Input(format!("{batch} texts, but the cache holds {kept}")));
        }
        let (mut rows, mut ids) = (Vec::with_capacity(batch), Vec::new());
        let (mut of_segments, mut nexts) = (Vec::new(), Vec::new());
        let none = Seen::default();
        for number in 0..batch {
            let seen = seen.map_or(&none, |seen| &seen[number]);
            let (past, next) = (seen.tokens, seen.next);
            let before = seen.words.indices.get(..seen.words.before).unwrap_or_default();
            let from = number * tokens;
            let (mut positions, mut mask, mut count) = (Vec::new(), Vec::new(), 0);
            for place in 0..tokens {
                let is_token = self.is_token[from + place];
                // Where tokens are counted, padding is at 0, which gates see.
                let position = match (self.tokens_only, is_token) {
                    (true, true) => count,
                    (true, false) => 0,
                    (false, _) => place,
                };
                count += usize::from(is_token);
                if is_token || !packed {
                    ids.push(self.ids[from + place]);
                    of_segments.extend(self.segments.as_ref().map(|s| s[from + place]));
                    positions.push(next + position);
                    mask.push(is_token);
                }
            }
            nexts.push(if self.tokens_only { next } else { next + tokens });
            let text = (0..positions.len()).collect();
            let mask = mask.contains(&false).then_some(mask);
            let own = &self.ids[from..from + tokens];
            let indices: Arc<[usize]> = before.iter().chain(own).copied().collect();
            let words = Words { indices, before: before.len() };
            rows.push(Row { positions, mask, text, past, shift: 0, words });
        }
        let segments = self.segments.as_ref().map(|_| of_segments);
        Ok(Placed { rows: Rows::new(rows, &self.device), ids, segments, next: nexts })
    }

    /// The text moved by one token, behind `start`, every one a token.
    pub(crate) fn moved(&self, start: usize) -> Self {
        let [_, tokens] = self.shape;
        let moved = |row: &[usize]| [&[start], &row[..tokens - 1]].concat();
        let ids: Vec<usize> = self.ids.chunks(tokens).flat_map(moved).collect();
        let is_token = vec![true; ids.len()];
        Self { ids, is_token, segments: None, tokens_only: false, ..self.clone() }
    }

    /// By row, the last place for which `wanted(index, is_token)` holds.
    pub(crate) fn last(&self, wanted: impl Fn(usize, bool) -> bool) -> Vec<Option<usize>> {
        let [_, tokens] = self.shape;
        let rows = self.ids.chunks(tokens).zip(self.is_token.chunks(tokens));
        let last = |(ids, is_token): (&[usize], &[bool])| {
            ids.iter().zip(is_token).rposition(|(id, is_token)| wanted(*id, *is_token))
        };
        rows.map(last).collect()
    }
}
