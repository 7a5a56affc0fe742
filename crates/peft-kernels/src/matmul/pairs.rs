//! Products in bf16: pairs of numbers are multiplied with pairs, and added in f32.
//!
//! A word is a pair of bf16, the first in its lower half. Where the processor has no such instruction
//! (AVX-512 BF16), pairs are widened to f32; the numbers are the same but for the order in which they
//! are added, and for numbers too small for f32's full precision, which the instruction takes as zeros.

use burn::tensor::bf16;
use pulp::Simd;

use super::tile::{Right, Sums};

/// Two numbers, each rounded to the nearest bf16.
#[inline(always)]
pub(super) fn pair(low: f32, high: f32) -> u32 {
    u32::from(bf16::from_f32(low).to_bits()) | u32::from(bf16::from_f32(high).to_bits()) << 16
}

/// The numbers of a pair.
#[inline(always)]
pub(super) fn halves(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & HIGH)]
}

const HIGH: u32 = 0xFFFF_0000;

/// How pairs are multiplied.
pub(super) trait Dot<S: Simd> {
    /// Whether it can be.
    const IS_ANY: bool = true;

    /// `sum + a₀ b₀ + a₁ b₁` in each lane, where all lanes have the same pair `a`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn dot(simd: S, sum: S::f32s, left: u32, right: S::u32s) -> S::f32s;

    /// Rows of pairs, each filled up with a zero: `rows` of `depth` numbers, `distance` apart.
    ///
    /// # Safety
    /// As above.
    unsafe fn rounded(rows: &[f32], count: usize, distance: usize, depth: usize) -> Vec<u32>;
}

/// Not at all: for products in f32 alone.
pub(super) struct Absent;

impl<S: Simd> Dot<S> for Absent {
    const IS_ANY: bool = false;

    #[inline(always)]
    unsafe fn dot(_: S, sum: S::f32s, _: u32, _: S::u32s) -> S::f32s {
        sum
    }

    #[inline(always)]
    unsafe fn rounded(_: &[f32], _: usize, _: usize, _: usize) -> Vec<u32> {
        Vec::new()
    }
}

/// In f32, on any processor.
pub(super) struct Widened;

impl<S: Simd> Dot<S> for Widened {
    #[inline(always)]
    unsafe fn dot(simd: S, sum: S::f32s, left: u32, right: S::u32s) -> S::f32s {
        let [low, high] = halves(left);
        let right_low = simd.wrapping_dyn_shl_u32s(right, simd.splat_u32s(16));
        let right_high = simd.and_u32s(right, simd.splat_u32s(HIGH));
        let sum =
            simd.mul_add_e_f32s(simd.splat_f32s(high), simd.transmute_f32s_u32s(right_high), sum);
        simd.mul_add_e_f32s(simd.splat_f32s(low), simd.transmute_f32s_u32s(right_low), sum)
    }

    #[inline(always)]
    unsafe fn rounded(rows: &[f32], count: usize, distance: usize, depth: usize) -> Vec<u32> {
        let mut pairs = Vec::with_capacity(count * depth.div_ceil(2));
        for row in 0..count {
            let row = &rows[row * distance..row * distance + depth];
            pairs.extend(row.chunks(2).map(|two| pair(two[0], two.get(1).copied().unwrap_or(0.0))));
        }
        pairs
    }
}

/// By the instructions of AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
pub(super) struct Native;

#[cfg(target_arch = "x86_64")]
impl Dot<pulp::x86::V4> for Native {
    #[inline(always)]
    unsafe fn dot(
        _: pulp::x86::V4,
        sum: pulp::f32x16,
        left: u32,
        right: pulp::u32x16,
    ) -> pulp::f32x16 {
        use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32};
        use std::mem::transmute;
        // SAFETY: registers of as many bits, any of which are numbers; the processor has the
        // instruction, as the caller says.
        unsafe {
            let left: __m512bh = transmute(_mm512_set1_epi32(left as i32));
            transmute(_mm512_dpbf16_ps(transmute(sum), left, transmute(right)))
        }
    }

    #[inline(always)]
    unsafe fn rounded(rows: &[f32], count: usize, distance: usize, depth: usize) -> Vec<u32> {
        use std::arch::x86_64::{_mm512_cvtneps_pbh, _mm512_loadu_ps};
        let width = depth.div_ceil(2);
        let mut pairs: Vec<u32> = Vec::with_capacity(count * width);
        for row in 0..count {
            let row = &rows[row * distance..row * distance + depth];
            let whole = depth / 16 * 16;
            for place in (0..whole).step_by(16) {
                let from = &row[place..place + 16];
                // SAFETY: 16 numbers are read, and there is room for as many in each row; the
                // processor has the instruction, as the caller says.
                unsafe {
                    let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                    let to = pairs.as_mut_ptr().add(pairs.len() + place / 2);
                    to.cast::<std::arch::x86_64::__m256bh>().write_unaligned(rounded);
                }
            }
            // SAFETY: there is room for whole rows, and these numbers were written.
            unsafe { pairs.set_len(pairs.len() + whole / 2) };
            let rest = row[whole..].chunks(2);
            pairs.extend(rest.map(|two| pair(two[0], two.get(1).copied().unwrap_or(0.0))));
        }
        pairs
    }
}

/// The left side of a product: rows of pairs.
#[derive(Clone, Copy)]
pub(super) struct Pairs {
    pub(super) start: *const u32,
    /// From a row to the next.
    pub(super) row: usize,
}

/// The sums with `left · right` over `depth` pairs added.
///
/// # Safety
/// `left` has `ROWS` rows of `depth` pairs, `right` has `depth` rows of `WIDE` registers of pairs, and
/// the processor has the instructions of `D`.
#[inline(always)]
pub(super) unsafe fn add<S: Simd, D: Dot<S>, const ROWS: usize, const WIDE: usize>(
    simd: S,
    mut sums: Sums<S, ROWS, WIDE>,
    left: Pairs,
    right: Right<u32>,
    depth: usize,
) -> Sums<S, ROWS, WIDE> {
    let (mut pairs, mut line) = (left.start, right.start);
    for _ in 0..depth {
        let mut registers = [simd.splat_u32s(0); WIDE];
        for (number, register) in registers.iter_mut().enumerate() {
            // SAFETY: the right side has `WIDE` registers in each of `depth` rows.
            *register =
                unsafe { line.add(number * S::F32_LANES).cast::<S::u32s>().read_unaligned() };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: all rows of the left side have `depth` pairs.
            let pair = unsafe { *pairs.add(row * left.row) };
            for (sum, register) in sums.iter_mut().zip(registers) {
                // SAFETY: as the caller says.
                *sum = unsafe { D::dot(simd, *sum, pair, register) };
            }
        }
        pairs = pairs.wrapping_add(1);
        line = line.wrapping_add(right.row);
    }
    sums
}
