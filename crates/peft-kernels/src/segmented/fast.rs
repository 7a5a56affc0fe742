//! The operation, block of rows by block of rows.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Segment;
use crate::fused::{
    Array, BLOCK, Operation, Saved, Shared, apply, filled, matrix, numbers, output,
};
use crate::matmul::{Panels, Products, Source, Start, Term, transposed_sum};
use crate::simd::run;

pub(super) fn segmented(
    y: Tensor<2>,
    x: Tensor<2>,
    a: Tensor<3>,
    b: Tensor<3>,
    segments: &[Segment],
) -> Tensor<2> {
    let ([rows, d_out], [of_x, d_in]) = (y.dims(), x.dims());
    let ([count, depth, rank], [of_b, inner, width]) = (a.dims(), b.dims());
    assert_eq!([of_x, depth, of_b, inner, width], [rows, d_in, count, rank, d_out], "shapes");
    let mut end = 0;
    for segment in segments {
        assert!(segment.rows.start == end && segment.rows.end >= end, "segments in order");
        assert!(segment.factors.is_none_or(|factors| factors < count), "{count} factors");
        end = segment.rows.end;
    }
    assert_eq!(end, rows, "segments of all rows");
    let operation = Segmented { segments: segments.to_vec(), sizes: [d_in, rank, d_out] };
    apply(operation, [y.into_dispatch(), x.into_dispatch(), a.into_dispatch(), b.into_dispatch()])
}

/// The operation. Its inputs are `y`, `x`, `A` and `B`.
#[derive(Debug)]
struct Segmented {
    segments: Vec<Segment>,
    /// `d_in`, `r` and `d_out`.
    sizes: [usize; 3],
}

/// Rows of one task, with one segment's factors.
type Block = (Range<usize>, Option<usize>);

impl Segmented {
    /// The rows of all segments, at most `height` of one together.
    fn blocks(&self, height: usize) -> Vec<Block> {
        let of = |Segment { rows, factors }: &Segment| {
            let (rows, factors) = (rows.clone(), *factors);
            let starts = rows.clone().step_by(height);
            starts.map(move |start| (start..rows.end.min(start + height), factors))
        };
        self.segments.iter().flat_map(of).collect()
    }

    /// What `f` makes of the factors of each segment, each once; nothing of those that no segment has.
    fn laid_out(
        &self,
        count: usize,
        f: impl Fn(usize) -> [Panels; 2] + Sync,
    ) -> Vec<Option<[Panels; 2]>> {
        let mut used = vec![false; count];
        for factors in self.segments.iter().filter_map(|segment| segment.factors) {
            used[factors] = true;
        }
        used.into_par_iter().enumerate().map(|(number, used)| used.then(|| f(number))).collect()
    }
}

/// One matrix of several.
fn one(all: &[f32], number: usize, shape: [usize; 2]) -> Source<'_> {
    let size = shape[0] * shape[1];
    Source::new(&all[number * size..(number + 1) * size], shape)
}

impl Operation for Segmented {
    fn names(&self) -> [&'static str; 2] {
        ["segmented low rank", "segmented low rank, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let [d_in, rank, d_out] = self.sizes;
        let ((y, [rows, _]), (x, _)) = (matrix(&inputs[0]), matrix(&inputs[1]));
        let (a, b) = (inputs[2].to_contiguous(), inputs[3].to_contiguous());
        let count = a.shape()[0];
        let panels = self.laid_out(count, |number| {
            [one(numbers(&a), number, [d_in, rank]), one(numbers(&b), number, [rank, d_out])]
                .map(Panels::new)
        });
        let mut inner = vec![0.0; rows * rank];
        let shared = Shared::of(&mut inner);
        let all = |out: Shared| {
            self.blocks(BLOCK).into_par_iter().with_max_len(1).for_each(|(rows, factors)| {
                // SAFETY: no two blocks have the same rows, and what is written lives on.
                let [out, inner] = [(out, d_out), (shared, rank)]
                    .map(|(all, width)| unsafe { all.part(rows.start * width..rows.end * width) });
                out.copy_from_slice(&numbers(&y)[rows.start * d_out..rows.end * d_out]);
                let Some([a, b]) = factors.and_then(|number| panels[number].as_ref()) else {
                    return;
                };
                let x = &numbers(&x)[rows.start * d_in..rows.end * d_in];
                run(Product { x, panels: a, start: Start::Zero, out: inner });
                run(Product { x: inner, panels: b, start: Start::Output, out });
            });
        };
        // SAFETY: the blocks are all rows.
        let values = unsafe { filled(rows * d_out, all) };
        (output(values, [rows, d_out]), vec![output(inner, [rows, rank])])
    }

    fn needs(&self, input: usize) -> bool {
        input > 0
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        let [d_in, rank, d_out] = self.sizes;
        let (above, [rows, _]) = matrix(&gradient);
        let (x, _) = matrix(saved.input(1));
        let (a, b) = (saved.input(2).to_contiguous(), saved.input(3).to_contiguous());
        let inner = numbers(&saved.values[0]);
        let count = a.shape()[0];
        let panels = self.laid_out(count, |number| {
            [one(numbers(&b), number, [rank, d_out]), one(numbers(&a), number, [d_in, rank])]
                .map(|source| Panels::new(source.transposed()))
        });
        let of_factors = wanted[2] || wanted[3];
        let blocks = self.blocks(TOGETHER);
        // Of each block the gradients of its factors, which are added in the order of the blocks.
        let mut partial = Vec::new();
        let all = |of_x: Shared| {
            let block = |(rows, factors): &Block| {
                // SAFETY: no two blocks have the same rows.
                let of_x = unsafe { of_x.part(rows.start * d_in..rows.end * d_in) };
                let Some([b, a]) = factors.and_then(|number| panels[number].as_ref()) else {
                    of_x.fill(0.0);
                    return None;
                };
                let above = &numbers(&above)[rows.start * d_out..rows.end * d_out];
                let mut of_inner = vec![0.0; rows.len() * rank];
                run(Product { x: above, panels: b, start: Start::Zero, out: &mut of_inner });
                run(Product { x: &of_inner, panels: a, start: Start::Zero, out: of_x });
                let mut sums = [d_in, d_out].map(|width| vec![0.0; rank * width]);
                if of_factors {
                    let [of_a, of_b] = &mut sums;
                    let x = &numbers(&x)[rows.start * d_in..rows.end * d_in];
                    let inner = &inner[rows.start * rank..rows.end * rank];
                    run(Sum { narrow: &of_inner, wide: x, rank, sums: of_a });
                    run(Sum { narrow: inner, wide: above, rank, sums: of_b });
                }
                Some(sums)
            };
            partial = blocks.par_iter().with_max_len(1).map(block).collect();
        };
        // SAFETY: the blocks are all rows, and each is written.
        let of_x = unsafe { filled(rows * d_in, all) };
        let mut sums = [d_in, d_out].map(|width| vec![0.0; count * rank * width]);
        for ((_, factors), partial) in blocks.iter().zip(partial) {
            let (Some(factors), Some(partial)) = (*factors, partial) else { continue };
            for (sums, partial) in sums.iter_mut().zip(partial) {
                let place = factors * partial.len();
                for (sum, value) in sums[place..].iter_mut().zip(partial) {
                    *sum += value;
                }
            }
        }
        let [of_a, of_b] = sums;
        let of_a = of_factors.then(|| {
            // The sums are those of the transposes.
            let turned = of_a.chunks((rank * d_in).max(1)).flat_map(|a| {
                (0..d_in * rank).map(move |place| a[place % rank * d_in + place / rank])
            });
            output(turned.collect(), [count, d_in, rank])
        });
        let of_b = of_factors.then(|| output(of_b, [count, rank, d_out]));
        vec![Some(gradient), Some(output(of_x, [rows, d_in])), of_a, of_b]
    }
}

/// Rows whose part of the factors' gradients is one sum.
const TOGETHER: usize = 4 * BLOCK;

/// A product of rows that lie one after another.
struct Product<'a> {
    x: &'a [f32],
    panels: &'a Panels,
    start: Start<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, panels, start, out } = self;
        let columns = panels.columns();
        let rows = x.len() / panels.depth().max(1);
        assert_eq!(out.len(), rows * columns, "room for {rows} rows");
        let products = Products { terms: &[Term::new(x, panels)], start };
        // SAFETY: there is room for these rows, and it is this task's.
        unsafe { products.run(simd, rows, 0..panels.count(), out.as_mut_ptr(), columns) };
    }
}

/// `sums + narrowᵀ wide`, `[r, d]`.
struct Sum<'a> {
    narrow: &'a [f32],
    wide: &'a [f32],
    rank: usize,
    sums: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { narrow, wide, rank, sums } = self;
        let rows = narrow.len() / rank.max(1);
        let width = sums.len() / rank.max(1);
        transposed_sum(simd, narrow, wide, [rows, rank, width], sums);
    }
}
