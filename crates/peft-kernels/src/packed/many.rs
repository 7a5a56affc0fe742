//! Products of many rows with a packed matrix: some columns at a time are unpacked, laid out, and
//! multiplied with all rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::PackedMatrix;
use crate::fused::{BLOCK, Shared};
use crate::matmul::{Panels, Products, Source, Start, Term};
use crate::simd::run;

/// Columns that one task unpacks: whole panels, and what fits a core's second cache with the rows of
/// most models.
const COLUMNS: usize = 192;

/// `x W + s (x A) B + b`, where the low-rank part is there and its narrow side computed.
#[derive(Clone, Copy)]
pub(super) struct Many<'a> {
    /// `[rows, d_in]`.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) weight: &'a PackedMatrix,
    /// `[d_out]`.
    pub(super) bias: Option<&'a [f32]>,
    /// `s x A`, `[rows, r]`, and `B`, `[r, d_out]`.
    pub(super) low_rank: Option<(&'a [f32], &'a [f32])>,
}

impl Many<'_> {
    /// Writes the whole product, `[rows, d_out]`.
    pub(super) fn run(&self, out: Shared) {
        let columns = self.weight.column_step(COLUMNS);
        let [_, d_out] = self.weight.product_shape();
        (0..d_out.div_ceil(columns)).into_par_iter().with_max_len(1).for_each(|number| {
            let columns = number * columns..d_out.min((number + 1) * columns);
            run(Task { product: *self, columns, out });
        });
    }
}

struct Task<'a> {
    product: Many<'a>,
    columns: Range<usize>,
    out: Shared,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product: Many { x, rows, weight, bias, low_rank }, columns, out } = self;
        let [d_in, d_out] = weight.product_shape();
        let numbers = weight.unpack_columns(columns.clone());
        let panels = match weight.is_transposed() {
            true => Panels::new(Source::new(&numbers, [columns.len(), d_in]).transposed()),
            false => Panels::new(Source::new(&numbers, [d_in, columns.len()])),
        };
        drop(numbers);
        let low = low_rank.map(|(inner, b)| {
            let depth = b.len() / d_out;
            let source = Source {
                values: &b[columns.start..],
                depth,
                columns: columns.len(),
                row: d_out,
                column: 1,
            };
            (inner, Panels::new(source))
        });
        let start = bias.map_or(Start::Zero, |bias| Start::Bias(&bias[columns.clone()]));
        for first in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - first);
            let mut terms = vec![Term::new(&x[first * d_in..(first + count) * d_in], &panels)];
            if let Some((inner, b)) = &low {
                let rank = b.depth();
                terms.push(Term::new(&inner[first * rank..(first + count) * rank], b));
            }
            let products = Products { terms: &terms, start };
            let place = first * d_out + columns.start;
            let end = (first + count - 1) * d_out + columns.end;
            // SAFETY: the output has these columns of these rows, which are this task's.
            unsafe {
                let out = out.pointer(place..end);
                products.run(simd, count, 0..panels.count(), out, d_out);
            }
        }
    }
}
