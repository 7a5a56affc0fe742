//! A tensor in packed form.

use burn::tensor::{TensorData, f16};

use super::BlockFormat;
use super::format::{pack_nf4, pack_q8_0};

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
        let numbers = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
        let size = (numbers / format.values()).checked_mul(format.bytes())?;
        let fits = has_whole_blocks(format, &shape) && bytes.len() == size;
        fits.then_some(Self { format, shape, bytes, transposed: false })
    }

    /// The numbers of a tensor of this shape in 16 bits (`F16`).
    ///
    /// # Panics
    /// If these are not as many numbers as it has.
    pub fn half(shape: Vec<usize>, values: &[f32]) -> Self {
        let pack =
            |values: &[f32]| values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        Self::packed(BlockFormat::F16, shape, values, pack).expect("a block for each number")
    }

    /// The numbers of a tensor of this shape in 8 bits (`Q8_0`), as ggml rounds them; `None` if its
    /// rows are no whole blocks.
    ///
    /// # Panics
    /// If these are not as many numbers as it has.
    pub fn eight_bit(shape: Vec<usize>, values: &[f32]) -> Option<Self> {
        Self::packed(BlockFormat::Q8_0, shape, values, pack_q8_0)
    }

    /// The numbers of a tensor of this shape in 4 bits (`NF4`), as bitsandbytes rounds them, whose
    /// scales are f32 here too where they are not packed themselves; `None` if its rows are no
    /// whole blocks.
    ///
    /// # Panics
    /// If these are not as many numbers as it has.
    pub fn four_bit(shape: Vec<usize>, values: &[f32]) -> Option<Self> {
        Self::packed(BlockFormat::NF4, shape, values, pack_nf4)
    }

    fn packed(
        format: BlockFormat,
        shape: Vec<usize>,
        values: &[f32],
        pack: fn(&[f32]) -> Vec<u8>,
    ) -> Option<Self> {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "as many numbers as {shape:?}");
        has_whole_blocks(format, &shape).then(|| Self {
            format,
            shape,
            bytes: pack(values),
            transposed: false,
        })
    }

    /// How its numbers are packed.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Its shape in packed form, with whole blocks in each row: `[d_out, d_in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The shape of [`values`](Self::values).
    pub fn values_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
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

    /// The blocks of these rows of a matrix.
    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> &[u8] {
        let row = self.shape[1] / self.format.values() * self.format.bytes();
        &self.bytes[rows.start * row..rows.end * row]
    }

    /// Writes the numbers in some columns of a row of a matrix, whole blocks of them.
    #[cfg(feature = "flex")]
    pub(crate) fn unpack_part(&self, row: usize, columns: std::ops::Range<usize>, to: &mut [f32]) {
        let (values, bytes) = (self.format.values(), self.format.bytes());
        let from = (row * self.shape[1] + columns.start) / values * bytes;
        let size = columns.len() / values * bytes;
        self.format.unpack_to(&self.bytes[from..from + size], to);
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
    pub fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// With each head's rows in Hugging Face's order: row `2 j + i` of `d` becomes row
    /// `i d/2 + j`. llama.cpp keeps the two rows that a rotation turns side by side. `None` if the
    /// rows do not make `heads` heads of an even width.
    pub fn unrotated(self, heads: usize) -> Option<Self> {
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

fn has_whole_blocks(format: BlockFormat, shape: &[usize]) -> bool {
    shape.last().copied().unwrap_or(1).is_multiple_of(format.values())
}
