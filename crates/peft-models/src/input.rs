//! Batches of token indices.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// A batch for a model.
#[derive(Debug, Clone)]
pub struct ModelInput {
    text: Text,
    decoder: Option<Text>,
}

/// A batch of texts.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// `[batch, tokens]`.
    pub(crate) ids: Tensor<2, Int>,
    /// `[batch, tokens]`; `None` where every position is a token.
    pub(crate) mask: Option<Tensor<2, Bool>>,
    /// `[batch, tokens]`.
    pub(crate) segments: Option<Tensor<2, Int>>,
    /// `[batch, tokens]`, where they are not 0, 1, ..
    pub(crate) positions: Option<Tensor<2, Int>>,
    /// The same on the host.
    host: Host,
}

/// What is known of a batch without asking the device.
#[derive(Debug, Clone)]
struct Host {
    shape: [usize; 2],
    ids: Vec<i64>,
    is_token: Vec<bool>,
    max_id: usize,
    max_segment: usize,
    max_position: Option<usize>,
    /// [`Text::positions`], where they are there, and how they were counted.
    positions: Vec<i64>,
    counted: Option<Counted>,
}

/// How positions are counted.
#[derive(Debug, Clone)]
struct Counted {
    /// By row, the first.
    first: Vec<usize>,
    /// Whether padding has none.
    tokens_only: bool,
}

impl Counted {
    fn has(&self, is_token: bool) -> bool {
        is_token || !self.tokens_only
    }
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
        let filled = |rows: &[&[u32]], fill: i64| -> Vec<i64> {
            let fill_up = |row: &[u32]| {
                let tail = std::iter::repeat_n(fill, longest - row.len());
                row.iter().map(|&i| i64::from(i)).chain(tail).collect::<Vec<_>>()
            };
            rows.iter().flat_map(|row| fill_up(row)).collect()
        };
        if let Some(segments) = segments
            && !segments.iter().map(|s| s.len()).eq(rows.iter().map(|r| r.len()))
        {
            return Err(Error::Input("segments and tokens have different lengths".into()));
        }
        let mask: Vec<i64> =
            rows.iter().flat_map(|row| (0..longest).map(|i| i64::from(i < row.len()))).collect();
        let shape = [rows.len(), longest];
        let data = |values: Vec<i64>| TensorData::new(values, shape);
        Self::from_data(
            data(filled(rows, pad as i64)),
            Some(data(mask)),
            segments.map(|segments| data(filled(segments, 0))),
            device,
        )
    }

    /// A batch from `[batch, tokens]` arrays: indices, 1 where there is a token, and segments.
    /// Positions are counted from the first index on, be it a token or not; where padding comes
    /// first, see [`counting_tokens`](Self::counting_tokens).
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
        let device = device.clone().without_autodiff();
        let numbers = |name: &str, data: TensorData| -> Result<Vec<i64>> {
            if data.shape().to_vec() != shape {
                let found = data.shape().to_vec();
                return Err(Error::Input(format!("{name} has shape {found:?}, not {shape:?}")));
            }
            let values = data.convert::<i64>().try_into_vec::<i64>();
            values.map_err(|e| Error::Input(format!("{name}: {e:?}")))
        };
        let max = |name: &str, values: &[i64]| match values.iter().min() {
            Some(&least) if least < 0 => Err(Error::Input(format!("{name} has {least}"))),
            _ => Ok(values.iter().copied().max().unwrap_or(0) as usize),
        };
        let shape = [batch, tokens];
        let ids = numbers("input_ids", ids)?;
        let max_id = max("input_ids", &ids)?;
        let is_token = match mask {
            Some(mask) => numbers("attention_mask", mask)?.into_iter().map(|m| m != 0).collect(),
            None => vec![true; ids.len()],
        };
        let segments = segments.map(|s| numbers("token_type_ids", s)).transpose()?;
        let max_segment = segments.as_deref().map_or(Ok(0), |s| max("token_type_ids", s))?;
        let all = is_token.iter().all(|is_token| *is_token);
        let mask = (!all).then(|| {
            let mask = is_token.iter().map(|is_token| i64::from(*is_token)).collect();
            ints(mask, shape, &device).not_equal_elem(0)
        });
        let segments = segments.map(|segments| ints(segments, shape, &device));
        let tensor = ints(ids.clone(), shape, &device);
        let (max_position, positions, counted) = (None, Vec::new(), None);
        let host =
            Host { shape, ids, is_token, max_id, max_segment, max_position, positions, counted };
        let text = Text { ids: tensor, mask, segments, positions: None, host };
        Ok(Self { text, decoder: None })
    }

    /// With what the decoder of an encoder-decoder is given.
    ///
    /// # Errors
    /// If it is another number of texts.
    pub fn with_decoder(self, decoder: Self) -> Result<Self> {
        let (own, others) = (self.text.host.shape[0], decoder.text.host.shape[0]);
        if own != others {
            return Err(Error::Input(format!("{own} texts, and {others} for the decoder")));
        }
        Ok(Self { decoder: Some(decoder.text), ..self })
    }

    /// With positions that count tokens only, so that a text has the same ones whatever padding is
    /// before it, as texts that are to be continued have it.
    pub fn counting_tokens(mut self) -> Self {
        let first = vec![0; self.text.host.shape[0]];
        for text in std::iter::once(&mut self.text).chain(&mut self.decoder) {
            text.count(Counted { first: first.clone(), tokens_only: true });
        }
        self
    }

    /// `[batch, tokens]` indices.
    pub fn ids(&self) -> Tensor<2, Int> {
        self.text.ids.clone()
    }

    /// Texts and tokens in the longest: `[batch, tokens]`.
    pub fn shape(&self) -> [usize; 2] {
        self.text.host.shape
    }

    /// The same of the texts that a model has an output for: the decoder's, where there are any.
    pub fn output_shape(&self) -> [usize; 2] {
        self.decoder.as_ref().unwrap_or(&self.text).host.shape
    }

    /// `[batch, tokens]`, true where there is a token; `None` where that is everywhere.
    pub fn mask(&self) -> Option<Tensor<2, Bool>> {
        self.text.mask.clone()
    }

    /// `[batch, tokens]` segment indices.
    pub fn segments(&self) -> Option<Tensor<2, Int>> {
        self.text.segments.clone()
    }

    pub(crate) fn text(&self) -> &Text {
        &self.text
    }

    pub(crate) fn decoder(&self) -> Option<&Text> {
        self.decoder.as_ref()
    }
}

impl Text {
    /// An index outside its table would read another row, or none, without a word.
    pub(crate) fn check(&self, vocab: usize, segments: Option<usize>) -> Result<()> {
        let Host { max_id, max_segment, .. } = self.host;
        if max_id >= vocab {
            return Err(Error::Input(format!(
                "token {max_id} is outside the vocabulary of {vocab}: do tokenizer and model \
                 belong together?"
            )));
        }
        // Without a table, a model reads none.
        if segments.is_some_and(|segments| max_segment >= segments) {
            let segments = segments.unwrap_or(0);
            return Err(Error::Input(format!(
                "segment {max_segment}, but the model has {segments}"
            )));
        }
        Ok(())
    }

    /// The largest of [`positions`](Self::positions).
    pub(crate) fn max_position(&self) -> Option<usize> {
        self.host.max_position
    }

    /// By row, the position behind the text in an output of `[batch, positions]` with `mask`, as in
    /// [`starts`](Self::starts).
    ///
    /// # Errors
    /// If a method repeated the batch, and put more before a text in one place than in another.
    pub(crate) fn next_positions(
        &self,
        shape: [usize; 2],
        mask: Option<&Tensor<2, Bool>>,
    ) -> Result<Vec<usize>> {
        let [rows, tokens] = self.host.shape;
        let starts = self.starts(shape, mask);
        if starts.iter().enumerate().any(|(row, start)| *start != starts[row % rows]) {
            let reason = "methods side by side put texts of different lengths before one, from \
                          which it cannot go on";
            return Err(Error::Input(reason.into()));
        }
        let own = |row: usize| match &self.host.counted {
            None => tokens,
            Some(counted) => {
                let is_token = &self.host.is_token[row * tokens..(row + 1) * tokens];
                counted.first[row] + is_token.iter().filter(|t| counted.has(**t)).count()
            }
        };
        Ok((0..rows).map(|row| starts[row] + own(row)).collect())
    }

    /// The same text behind an earlier one that ended before these positions.
    ///
    /// # Errors
    /// If that had another number of rows.
    pub(crate) fn continued(&self, next: Vec<usize>) -> Result<Self> {
        let rows = self.host.shape[0];
        if next.len() != rows {
            let kept = next.len();
            return Err(Error::Input(format!("{rows} texts, but the cache is of {kept}")));
        }
        let tokens_only = self.host.counted.as_ref().is_some_and(|counted| counted.tokens_only);
        let mut text = self.clone();
        text.count(Counted { first: next, tokens_only });
        Ok(text)
    }

    fn count(&mut self, counted: Counted) {
        let tokens = self.host.shape[1];
        let mut positions = Vec::with_capacity(self.host.is_token.len());
        for (row, first) in self.host.is_token.chunks(tokens).zip(&counted.first) {
            let mut next = *first as i64;
            for is_token in row {
                let counts = counted.has(*is_token);
                positions.push(if counts { next } else { 0 });
                next += i64::from(counts);
            }
        }
        self.host.max_position = positions.iter().max().map(|position| *position as usize);
        self.host.counted = Some(counted);
        self.positions = Some(ints(positions.clone(), self.host.shape, &self.ids.device()));
        self.host.positions = positions;
    }

    /// By row of an output with `positions` positions and `mask`, which methods may have repeated
    /// and lengthened: how many are before the text.
    pub(crate) fn starts(
        &self,
        [batch, positions]: [usize; 2],
        mask: Option<&Tensor<2, Bool>>,
    ) -> Vec<usize> {
        let [rows, tokens] = self.host.shape;
        let added = positions - tokens;
        let Some(mask) = mask.filter(|_| added > 0) else { return vec![added; batch] };
        // Rows to which less was added are filled up behind the text.
        let all: Vec<i64> = mask
            .clone()
            .int()
            .sum_dim(1)
            .into_data()
            .convert::<i64>()
            .try_into_vec()
            .expect("converted");
        let own = |row: usize| {
            let row = row % rows * tokens;
            self.host.is_token[row..row + tokens].iter().filter(|is_token| **is_token).count()
        };
        all.iter().enumerate().map(|(row, all)| *all as usize - own(row)).collect()
    }

    /// The positions of an output of `[batch, length]` with `mask`, as in [`starts`](Self::starts):
    /// what methods put before a text is counted too.
    pub(crate) fn lengthened_positions(
        &self,
        [batch, length]: [usize; 2],
        mask: Option<&Tensor<2, Bool>>,
    ) -> Tensor<2, Int> {
        let [rows, tokens] = self.host.shape;
        let starts = self.starts([batch, length], mask);
        let row = |(row, start): (usize, &usize)| {
            let own = &self.host.positions[row % rows * tokens..][..tokens];
            let front = (0..*start as i64).chain(own.iter().map(|own| own + *start as i64));
            front.chain(std::iter::repeat(0)).take(length).collect::<Vec<_>>()
        };
        let positions = starts.iter().enumerate().flat_map(row).collect();
        ints(positions, [batch, length], &self.ids.device())
    }

    /// The text moved by one token, behind `start`, every one a token.
    pub(crate) fn moved(&self, start: usize) -> Self {
        let tokens = self.host.shape[1];
        let rows = self.host.ids.chunks(tokens);
        let moved = |row: &[i64]| [&[start as i64], &row[..tokens - 1]].concat();
        let ids: Vec<i64> = rows.flat_map(moved).collect();
        let host = Host {
            is_token: vec![true; ids.len()],
            max_id: self.host.max_id.max(start),
            max_segment: 0,
            max_position: None,
            positions: Vec::new(),
            counted: None,
            ids: ids.clone(),
            ..self.host
        };
        let ids = ints(ids, host.shape, &self.ids.device());
        Self { ids, mask: None, segments: None, positions: None, host }
    }

    /// By row, the last place for which `wanted(index, is_token)` holds.
    pub(crate) fn last(&self, wanted: impl Fn(i64, bool) -> bool) -> Vec<Option<usize>> {
        let tokens = self.host.shape[1];
        let rows = self.host.ids.chunks(tokens).zip(self.host.is_token.chunks(tokens));
        let last = |(ids, is_token): (&[i64], &[bool])| {
            ids.iter().zip(is_token).rposition(|(id, is_token)| wanted(*id, *is_token))
        };
        rows.map(last).collect()
    }
}

fn ints(values: Vec<i64>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
