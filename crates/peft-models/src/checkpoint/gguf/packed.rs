//! A tensor as it lies in a file.

use burn::tensor::TensorData;

use super::BlockFormat;

/// A tensor in packed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedTensor {
    format: BlockFormat,
    shape: Vec<usize>,
    bytes: Vec<u8>,
    transposed: bool,
}

impl PackedTensor {
    /// From the blocks of a tensor of this shape, row after row; `None` if these are not as many
    /// bytes as it has, or its rows no whole blocks.
    pub fn new(format: BlockFormat, shape: Vec<usize>, bytes: Vec<u8>) -> Option<Self> {
        let row = shape.last().copied().unwrap_or(1);
        let numbers = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
        let size = (numbers / format.values()).checked_mul(format.bytes())?;
        let fits = row.is_multiple_of(format.values()) && bytes.len() == size;
        fits.then_some(Self { format, shape, bytes, transposed: false })
    }

    /// How its numbers are packed.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Its shape in packed form, with whole blocks in each row: `[d_out, d_in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether Hugging Face has this matrix the other way round, `[d_in, d_out]`: GPT-2's linear
    /// layers.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The blocks, row after row.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The blocks, row after row, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its numbers in f32, as Hugging Face has them.
    pub fn values(&self) -> TensorData {
        let values = self.format.unpack(&self.bytes);
        match (self.transposed, self.shape.as_slice()) {
            (true, &[rows, columns]) => {
                let flipped = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]);
                TensorData::new(flipped.collect::<Vec<f32>>(), [columns, rows])
            }
            _ => TensorData::new(values, self.shape.clone()),
        }
    }

    /// The same matrix, said to be the other way round in Hugging Face's layout.
    pub(super) fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// With each head's rows in Hugging Face's order: row `2 j + i` of `d` becomes row
    /// `i d/2 + j`. llama.cpp keeps the two rows that a rotation turns side by side. `None` if the
    /// rows do not make `heads` heads of an even width.
    pub(super) fn unrotated(self, heads: usize) -> Option<Self> {
        let rows = *self.shape.first()?;
        let width = rows.checked_div(heads)?;
        let size = self.bytes.len().checked_div(rows)?;
        if width * heads != rows || !width.is_multiple_of(2) || size * rows != self.bytes.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for row in 0..rows {
            let (head, in_head) = (row / width, row % width);
            let (i, j) = (in_head / (width / 2), in_head % (width / 2));
            let from = (head * width + 2 * j + i) * size;
            bytes.extend_from_slice(&self.bytes[from..from + size]);
        }
        Some(Self { bytes, ..self })
    }
}
