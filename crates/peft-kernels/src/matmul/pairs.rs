//! Products in bf16: pairs of numbers are multiplied with pairs, and added in f32.
//!
//! A word is a pair of bf16, the first in its lower half. Where the processor has no such instruction
//! (AVX-512 BF16), pairs are widened to f32; the numbers are the same but for the order in which they
//! are added, and for numbers too small for f32's full precision, which the instruction takes as zeros.

use std::ops::Range;

use burn::tensor::bf16;
use pulp::{Simd, WithSimd};

use super::product::{Start, Term};
use super::tile::{self, Right, Sums, most_registers, most_rows, of_rows, of_size};

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

/// `start + left · panels`, where the panels are in bf16: of `rows` rows that lie `distance` apart in `out`.
pub(super) struct PairProduct<'a> {
    pub(super) term: &'a Term<'a>,
    pub(super) start: Start<'a>,
    pub(super) rows: usize,
    pub(super) panels: Range<usize>,
    pub(super) out: *mut f32,
    pub(super) distance: usize,
}

impl PairProduct<'_> {
    /// Writes it.
    ///
    /// # Safety
    /// `out` has room for that many rows of as many columns, and nobody else reads or writes those
    /// of these panels meanwhile.
    pub(super) unsafe fn run<S: Simd>(self, simd: S) {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16 && crate::simd::has_bf16() {
            // SAFETY: the processor has the instructions, and the rest is as the caller says.
            return unsafe { native(self) };
        }
        simd.vectorize(self);
    }

    /// # Safety
    /// The processor has the instructions of `D`, and the rest is as for [`run`](Self::run).
    #[inline(always)]
    unsafe fn with<S: Simd, D: Dot<S>>(self, simd: S) {
        let Self { term, start, rows, panels, out, distance } = self;
        let Term { left, row, column, panels: right, depth } = *term;
        assert_eq!([column, depth], [1, right.depth()], "whole rows to round");
        assert!(rows == 0 || (rows - 1) * row + depth <= left.len(), "a left side of {rows} rows");
        // SAFETY: as the caller says.
        let rounded = unsafe { D::rounded(left, rows, row, depth) };
        let depth = depth.div_ceil(2);
        let width = right.width();
        for number in panels {
            let columns = right.columns_of(number);
            let lines = Right { start: right.pairs(number).as_ptr(), row: width };
            let mut row = 0;
            while row < rows {
                let count = most_rows(S::F32_LANES).min(rows - row);
                let left = Pairs { start: rounded[row * depth..].as_ptr(), row: depth };
                let out = out.wrapping_add(row * distance + columns.start);
                macro_rules! tile {
                    ($rows:literal, $registers:literal) => {
                        // SAFETY: both sides have these rows and columns, `out` too, and the
                        // processor the instructions, as the caller says.
                        unsafe {
                            let sums = start.sums::<S, $rows, $registers>(
                                simd,
                                out,
                                distance,
                                columns.clone(),
                            );
                            let sums =
                                add::<S, D, $rows, $registers>(simd, sums, left, lines, depth);
                            tile::write(simd, sums, out, distance, columns.len());
                        }
                    };
                }
                of_size!(S, [count, width / S::F32_LANES], tile);
                row += count;
            }
        }
    }
}

impl WithSimd for PairProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // SAFETY: any processor can widen numbers, and the rest is as the caller of `run` says.
        unsafe { self.with::<S, Widened>(simd) };
    }
}

/// The same with AVX-512 BF16.
///
/// # Safety
/// The processor has it, and AVX-512 as `V4` is; the rest is as for `run`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn native(product: PairProduct<'_>) {
    // SAFETY: as the caller says.
    unsafe { product.with::<_, Native>(pulp::x86::V4::new_unchecked()) };
}

/// How pairs are multiplied.
trait Dot<S: Simd> {
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

/// In f32, on any processor.
struct Widened;

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
struct Native;

#[cfg(target_arch = "x86_64")]
impl Dot<pulp::x86::V4> for Native {
    #[inline(always)]
    unsafe fn dot(
        _: pulp::x86::V4,
        sum: pulp::f32x16,
        left: u32,
        right: pulp::u32x16,
    ) -> pulp::f32x16 {
        use std::arch::x86_64::{__m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32};
        use std::mem::transmute;
        // SAFETY: registers of as many bits, any of which are numbers; the processor has the
        // instruction, as the caller says.
        unsafe {
            let left = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(left as i32));
            let right = transmute::<pulp::u32x16, __m512bh>(right);
            let sum = transmute::<pulp::f32x16, __m512>(sum);
            transmute::<__m512, pulp::f32x16>(_mm512_dpbf16_ps(sum, left, right))
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
struct Pairs {
    start: *const u32,
    /// From a row to the next.
    row: usize,
}

/// The sums with `left · right` over `depth` pairs added.
///
/// # Safety
/// `left` has `ROWS` rows of `depth` pairs, `right` has `depth` rows of `WIDE` registers of pairs, and
/// the processor has the instructions of `D`.
#[inline(always)]
unsafe fn add<S: Simd, D: Dot<S>, const ROWS: usize, const WIDE: usize>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;
    use crate::matmul::{Panels, Source};
    use crate::simd::run;

    struct Both<'a>(PairProduct<'a>, PairProduct<'a>);

    impl WithSimd for Both<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // SAFETY: the outputs are those of the test, with room for all rows.
            unsafe { self.0.run(simd) };
            simd.vectorize(self.1);
        }
    }

    #[test]
    fn widened_products_are_those_of_the_instruction() {
        for [rows, depth, columns] in [[1, 1, 1], [13, 17, 50], [9, 32, 48], [31, 71, 130]] {
            let numbers = |count: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect()
            };
            let (left, right) = (numbers(rows * depth), numbers(depth * columns));
            let source = Source::new(&right, [depth, columns]);
            let panels = Panels::on_all_cores(source, Element::Bf16);
            let term = Term::new(&left, &panels);
            let mut outputs = [vec![1.0; rows * columns], vec![1.0; rows * columns]];
            let [a, b] = outputs.each_mut().map(|out| PairProduct {
                term: &term,
                start: Start::Output,
                rows,
                panels: 0..panels.count(),
                out: out.as_mut_ptr(),
                distance: columns,
            });
            run(Both(a, b));
            for (a, b) in outputs[0].iter().zip(&outputs[1]) {
                assert!((a - b).abs() < 1e-3, "{rows} x {depth} x {columns}: {a} {b}");
            }
        }
    }
}
