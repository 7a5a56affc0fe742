//! The formats in which numbers are packed: each block holds the scale that its numbers share.

mod eight_bit;
mod k_blocks;
mod normal_float;
#[cfg(target_arch = "x86_64")]
mod wide;

use burn::tensor::{bf16, f16};
use pulp::{Simd, WithSimd};

pub(crate) use eight_bit::pack as pack_q8_0;
pub(crate) use normal_float::pack as pack_nf4;

use crate::simd;

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
/// | `NF4` | 64 | 36 | `a t[q]`, `t` the 16 quantiles of QLoRA's 4-bit NormalFloat |
///
/// `d`, `e`, and `m` of `Q4_1` and `Q5_1`, are halves (F16); `a` of `NF4` is an f32, the largest
/// absolute value of the block. All but `NF4` are GGUF's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs, reason = "the formats' own names")]
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
    NF4,
}

impl BlockFormat {
    /// Numbers in a block.
    pub fn values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::NF4 => 64,
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
            Self::NF4 => 36,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// The numbers of whole blocks, with the roundings of the formats' own arithmetic: each product
    /// and sum in f32.
    ///
    /// # Panics
    /// If `blocks` does not end with a block.
    pub fn unpack(self, blocks: &[u8]) -> Vec<f32> {
        assert!(blocks.len().is_multiple_of(self.bytes()), "whole blocks of {self:?}");
        let mut values = vec![0.0; blocks.len() / self.bytes() * self.values()];
        self.unpack_to(blocks, &mut values);
        values
    }

    /// Writes the numbers of whole blocks, with the widest registers that the machine has.
    pub(crate) fn unpack_to(self, blocks: &[u8], values: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if simd::level() == simd::Level::Avx512 {
            // SAFETY: that level has these instructions.
            if unsafe { wide::unpack(self, blocks, values) } {
                return;
            }
        }
        simd::run(Unpack { format: self, blocks, values });
    }

    #[inline(always)]
    fn unpack_into(self, blocks: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => each(
                blocks,
                values,
                #[inline(always)]
                |b: &[u8; 4], v: &mut [f32; 1]| {
                    v[0] = f32::from_le_bytes(*b);
                },
            ),
            Self::F16 => each(
                blocks,
                values,
                #[inline(always)]
                |b: &[u8; 2], v: &mut [f32; 1]| v[0] = half(b, 0),
            ),
            Self::BF16 => each(
                blocks,
                values,
                #[inline(always)]
                |b, v: &mut [f32; 1]| {
                    v[0] = bf16::from_le_bytes(*b).to_f32();
                },
            ),
            Self::Q8_0 => each(
                blocks,
                values,
                #[inline(always)]
                |block: &[u8; 34], out: &mut [f32; 32]| {
                    let d = half(block, 0);
                    for (v, q) in out.iter_mut().zip(&block[2..]) {
                        *v = f32::from(*q as i8) * d;
                    }
                },
            ),
            Self::Q4_0 => each(
                blocks,
                values,
                #[inline(always)]
                |block: &[u8; 18], out: &mut [f32; 32]| {
                    let d = half(block, 0);
                    nibbles(
                        &block[2..],
                        out,
                        #[inline(always)]
                        |q| d * (f32::from(q) - 8.0),
                    );
                },
            ),
            Self::Q4_1 => each(
                blocks,
                values,
                #[inline(always)]
                |block: &[u8; 20], out: &mut [f32; 32]| {
                    let (d, m) = (half(block, 0), half(block, 2));
                    nibbles(
                        &block[4..],
                        out,
                        #[inline(always)]
                        |q| d * f32::from(q) + m,
                    );
                },
            ),
            Self::Q5_0 => each(
                blocks,
                values,
                #[inline(always)]
                |block: &[u8; 22], out: &mut [f32; 32]| {
                    let d = half(block, 0);
                    five_bits(
                        &block[2..],
                        out,
                        #[inline(always)]
                        |q| d * (f32::from(q) - 16.0),
                    );
                },
            ),
            Self::Q5_1 => each(
                blocks,
                values,
                #[inline(always)]
                |block: &[u8; 24], out: &mut [f32; 32]| {
                    let (d, m) = (half(block, 0), half(block, 2));
                    five_bits(
                        &block[4..],
                        out,
                        #[inline(always)]
                        |q| d * f32::from(q) + m,
                    );
                },
            ),
            Self::Q4_K => each(blocks, values, k_blocks::q4),
            Self::Q5_K => each(blocks, values, k_blocks::q5),
            Self::Q6_K => each(blocks, values, k_blocks::q6),
            Self::NF4 => each(blocks, values, normal_float::unpack),
        }
    }
}

/// The numbers of some blocks.
struct Unpack<'a> {
    format: BlockFormat,
    blocks: &'a [u8],
    values: &'a mut [f32],
}

impl WithSimd for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.format.unpack_into(self.blocks, self.values);
    }
}

/// Calls `unpack` on each block and where its numbers go.
#[inline(always)]
fn each<const N: usize, const V: usize>(
    blocks: &[u8],
    values: &mut [f32],
    unpack: impl Fn(&[u8; N], &mut [f32; V]),
) {
    for (block, values) in blocks.as_chunks::<N>().0.iter().zip(values.as_chunks_mut::<V>().0) {
        unpack(block, values);
    }
}

/// The half at an offset.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Twice as many numbers as bytes: those of the lower halves, then those of the upper ones.
#[inline(always)]
fn nibbles(bytes: &[u8], out: &mut [f32], number: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(bytes.len());
    // Two loops, each of which becomes a few wide instructions.
    for (v, byte) in low.iter_mut().zip(bytes) {
        *v = number(byte & 15);
    }
    for (v, byte) in high.iter_mut().zip(bytes) {
        *v = number(byte >> 4);
    }
}

/// Four bytes of fifth bits, then 16 bytes of nibbles.
#[inline(always)]
fn five_bits(bytes: &[u8], out: &mut [f32; 32], number: impl Fn(u8) -> f32) {
    let (bits, bytes) = bytes.split_at(4);
    let (low, high) = out.split_at_mut(16);
    for (i, byte) in bytes.iter().enumerate() {
        let fifth = |i: usize| ((bits[i / 8] >> (i % 8)) & 1) << 4;
        low[i] = number(byte & 15 | fifth(i));
        high[i] = number(byte >> 4 | fifth(i + 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_registers_unpack_to_the_same_bits() {
        let formats = [
            BlockFormat::F32,
            BlockFormat::F16,
            BlockFormat::BF16,
            BlockFormat::Q8_0,
            BlockFormat::Q4_0,
            BlockFormat::Q4_1,
            BlockFormat::Q5_0,
            BlockFormat::Q5_1,
            BlockFormat::Q4_K,
            BlockFormat::Q5_K,
            BlockFormat::Q6_K,
            BlockFormat::NF4,
        ];
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for format in formats {
            // Any bytes are numbers, some of them none.
            let blocks: Vec<u8> = (0..500 * format.bytes()).map(|_| byte()).collect();
            let mut plain = vec![0.0; 500 * format.values()];
            format.unpack_into(&blocks, &mut plain);
            let found = format.unpack(&blocks);
            for (place, (found, plain)) in found.iter().zip(&plain).enumerate() {
                let alike = found.to_bits() == plain.to_bits() || found.is_nan() && plain.is_nan();
                assert!(alike, "{format:?} at {place}: {found} for {plain}");
            }
        }
    }
}
