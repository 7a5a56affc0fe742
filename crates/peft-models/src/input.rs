//! Batches of token indices.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// A batch for a model.
#[derive(Debug, Clone)]
pub struct ModelInput {
    ids: Tensor<2, Int>,
    /// `None` where every position is a token.
    mask: Option<Tensor<2, Bool>>,
    segments: Option<Tensor<2, Int>>,
    max_id: usize,
    max_segment: usize,
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
        let tensor = |values: Vec<i64>| {
            Tensor::<2, Int>::from_data(TensorData::new(values, [batch, tokens]), &device)
        };
        let ids = numbers("input_ids", ids)?;
        let max_id = max("input_ids", &ids)?;
        let mask = match mask {
            Some(mask) => numbers("attention_mask", mask)?,
            None => vec![1; ids.len()],
        };
        let full = mask.iter().all(|&m| m != 0);
        let segments = segments.map(|s| numbers("token_type_ids", s)).transpose()?;
        let max_segment = segments.as_deref().map_or(Ok(0), |s| max("token_type_ids", s))?;
        Ok(Self {
            ids: tensor(ids),
            mask: (!full).then(|| tensor(mask).not_equal_elem(0)),
            segments: segments.map(tensor),
            max_id,
            max_segment,
        })
    }

    /// `[batch, tokens]` indices.
    pub fn ids(&self) -> Tensor<2, Int> {
        self.ids.clone()
    }

    /// Texts and tokens in the longest: `[batch, tokens]`.
    pub fn shape(&self) -> [usize; 2] {
        self.ids.dims()
    }

    /// `[batch, tokens]`, true where there is a token; `None` where that is everywhere.
    pub fn mask(&self) -> Option<Tensor<2, Bool>> {
        self.mask.clone()
    }

    /// `[batch, tokens]` segment indices.
    pub fn segments(&self) -> Option<Tensor<2, Int>> {
        self.segments.clone()
    }

    /// An index outside its table would read another row, or none, without a word.
    pub(crate) fn check(&self, vocab: usize, segments: usize) -> Result<()> {
        if self.max_id >= vocab {
            return Err(Error::Input(format!(
                "token {} is outside the vocabulary of {vocab}: do tokenizer and model belong \
                 together?",
                self.max_id
            )));
        }
        if self.max_segment >= segments {
            let max = self.max_segment;
            return Err(Error::Input(format!("segment {max}, but the model has {segments}")));
        }
        Ok(())
    }
}
