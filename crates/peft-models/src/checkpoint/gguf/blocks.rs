//! The formats in which GGUF packs numbers: each block holds the scale that its numbers share.

use burn::tensor::{bf16, f16};

use super::k_blocks;

/// How numbers are packed: in blocks along the rows of a tensor, each of `bytes` bytes for `values`
/// numbers.
///
/// | format | numbers | bytes | one number |
/// |---|---|---|---|
/// | `F32`, `F16`, `BF16` | 1 | 4, 2, 2 | itself |
/// | `Q8_0` | 32 | 34 | `d q`, `q` in -128..=127 |
/// | `Q4_0`, `Q5_0` | 32 | 18, 22 | `d (q - 8)`, `d (q - 16)` |
/// | `Q4_1`, `Q5_1` | 32 | 20, 24 | `d q + m` |
/// | `Q4_K`, `Q5_K` | 256 | 144, 176 | `(d s) q - (e m)`, 6-bit `s` and `m` for each 32 |
/// | `Q6_K` | 256 | 210 | `(d s) (q - 32)`, 8-bit `s` for each 16 |
///
/// `d`, `e`, and `m` of `Q4_1` and `Q5_1`, are halves (F16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs, reason = "the format's own names")]
pub enum BlockFormat {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// The names of ggml's types by number, to say what is not supported. Gaps were given up.
const TYPES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl BlockFormat {
    /// All there are, with ggml's numbers.
    const ALL: [(u32, Self); 11] = [
        (0, Self::F32),
        (1, Self::F16),
        (30, Self::BF16),
        (8, Self::Q8_0),
        (2, Self::Q4_0),
        (3, Self::Q4_1),
        (6, Self::Q5_0),
        (7, Self::Q5_1),
        (12, Self::Q4_K),
        (13, Self::Q5_K),
        (14, Self::Q6_K),
    ];

    /// The format with ggml's number, or else the name of what the number stands for.
    pub(super) fn from_number(number: u32) -> Result<Self, String> {
        if let Some((_, format)) = Self::ALL.iter().find(|(known, _)| *known == number) {
            return Ok(*format);
        }
        let named = TYPES.iter().find(|(known, _)| *known == number);
        Err(named.map_or_else(|| format!("number {number}"), |(_, name)| (*name).into()))
    }

    /// The names of all formats.
    pub(super) fn names() -> String {
        Self::ALL.map(|(_, format)| format!("{format:?}")).join(", ")
    }

    /// Numbers in a block.
    pub fn values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// The numbers of whole blocks, with the roundings of ggml's own arithmetic: each product and
    /// sum in f32.
    ///
    /// # Panics
    /// If `blocks` does not end with a block.
    pub fn unpack(self, blocks: &[u8]) -> Vec<f32> {
        assert!(blocks.len().is_multiple_of(self.bytes()), "whole blocks of {self:?}");
        let mut values = Vec::with_capacity(blocks.len() / self.bytes() * self.values());
        let out = &mut values;
        match self {
            Self::F32 => each(blocks, |b: &[u8; 4]| out.push(f32::from_le_bytes(*b))),
            Self::F16 => each(blocks, |b: &[u8; 2]| out.push(half(b, 0))),
            Self::BF16 => each(blocks, |b| out.push(bf16::from_le_bytes(*b).to_f32())),
            Self::Q8_0 => each(blocks, |block: &[u8; 34]| {
                let d = half(block, 0);
                out.extend(block[2..].iter().map(|&q| f32::from(q as i8) * d));
            }),
            Self::Q4_0 => each(blocks, |block: &[u8; 18]| {
                let d = half(block, 0);
                out.extend(nibbles(&block[2..]).map(|q| d * (f32::from(q) - 8.0)));
            }),
            Self::Q4_1 => each(blocks, |block: &[u8; 20]| {
                let (d, m) = (half(block, 0), half(block, 2));
                out.extend(nibbles(&block[4..]).map(|q| d * f32::from(q) + m));
            }),
            Self::Q5_0 => each(blocks, |block: &[u8; 22]| {
                let d = half(block, 0);
                out.extend(five_bits(&block[2..]).map(|q| d * (f32::from(q) - 16.0)));
            }),
            Self::Q5_1 => each(blocks, |block: &[u8; 24]| {
                let (d, m) = (half(block, 0), half(block, 2));
                out.extend(five_bits(&block[4..]).map(|q| d * f32::from(q) + m));
            }),
            Self::Q4_K => each(blocks, |block| k_blocks::q4(block, out)),
            Self::Q5_K => each(blocks, |block| k_blocks::q5(block, out)),
            Self::Q6_K => each(blocks, |block| k_blocks::q6(block, out)),
        }
        values
    }
}

/// Calls `unpack` on each block.
fn each<const N: usize>(blocks: &[u8], mut unpack: impl FnMut(&[u8; N])) {
    for block in blocks.as_chunks::<N>().0 {
        unpack(block);
    }
}

/// The half at an offset.
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The lower halves of all bytes, then the upper ones.
pub(super) fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Four bytes of fifth bits, then 16 bytes of nibbles.
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let (high, low) = bytes.split_at(4);
    nibbles(low).enumerate().map(|(i, q)| q | ((high[i / 8] >> (i % 8)) & 1) << 4)
}
