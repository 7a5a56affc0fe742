//! The gradients of a linear layer, chunk of rows by chunk of rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::forward::{Linear, masked};
use crate::Activation;
use crate::fused::{Array, BLOCK, Saved, Shared, chunks, filled, matrix, numbers, output, summed};
use crate::matmul::{Panels, Products, Source, Start, Term, transposed_sum};
use crate::simd::{Lanes, random::Mask, run};
use crate::weight::PackedWeight;

/// The gradients of `x`, the bias, `A` and `B`, as far as they are there and wanted.
pub(super) fn backward(
    layer: &Linear,
    saved: &Saved,
    gradient: &Array,
    wanted: &[bool],
) -> Vec<Option<Array>> {
    let (gradient, [tokens, d_out]) = matrix(gradient);
    let [d_in, _] = layer.weight.dims();
    let mut values = saved.values.iter();
    let product = layer.activation.map(|activation| {
        (activation, numbers(values.next().expect("saved before an activation")))
    });
    let low_rank = layer.low_rank.as_ref().map(|part| {
        let at = layer.factors();
        let (a, a_shape) = matrix(saved.input(at));
        let (b, b_shape) = matrix(saved.input(at + 1));
        let inner = numbers(values.next().expect("saved before the second factor"));
        let (x, _) = matrix(saved.input(0));
        (
            LowRankBack {
                back_a: Panels::new(Source::new(numbers(&a), a_shape).transposed()),
                back_b: Panels::scaled(Source::new(numbers(&b), b_shape).transposed(), part.scale),
                mask: part.mask,
                inner,
                of_factors: wanted[at] || wanted[at + 1],
            },
            x,
        )
    });
    let (low_rank, x) = low_rank.unzip();
    let rank = low_rank.as_ref().map_or(0, |part| part.back_b.columns());
    let of_bias = layer.has_bias && wanted[1];
    let of_x = wanted[0];
    let task = Task {
        gradient: numbers(&gradient),
        d_in,
        d_out,
        x: x.as_ref().map(numbers),
        weight: of_x.then(|| layer.weight.backward()),
        product,
        low_rank,
        of_bias,
    };
    let of_factors = task.low_rank.as_ref().is_some_and(|part| part.of_factors);
    let sums = [
        if of_bias { d_out } else { 0 },
        if of_factors { rank * d_in } else { 0 },
        if of_factors { rank * d_out } else { 0 },
    ];
    let mut partial = Vec::new();
    let all = |of_input: Option<Shared>| {
        chunks(tokens, |rows| {
            let mut sums = sums.map(|size| vec![0.0; size]);
            run(Chunk { task: &task, rows, of_input, sums: &mut sums });
            sums
        })
    };
    let of_input = if of_x {
        // SAFETY: every row is in a chunk, which writes all of it.
        let values = unsafe { filled(tokens * d_in, |out| partial = all(Some(out))) };
        Some(output(values, [tokens, d_in]))
    } else {
        partial = all(None);
        None
    };
    let [bias, a, b] = summed(partial, sums);
    let mut gradients = vec![of_input];
    if layer.has_bias {
        gradients.push(of_bias.then(|| output(bias, [d_out])));
    }
    if layer.low_rank.is_some() {
        // Of `A` the sums are those of its transpose.
        gradients.push(of_factors.then(|| {
            let flipped = (0..d_in * rank).map(|i| a[i % rank * d_in + i / rank]).collect();
            output(flipped, [d_in, rank])
        }));
        gradients.push(of_factors.then(|| output(b, [rank, d_out])));
    }
    gradients
}

/// What the chunks share.
struct Task<'a> {
    gradient: &'a [f32],
    d_in: usize,
    d_out: usize,
    x: Option<&'a [f32]>,
    /// Where the gradient of `x` is wanted.
    weight: Option<&'a Panels>,
    product: Option<(Activation, &'a [f32])>,
    low_rank: Option<LowRankBack<'a>>,
    of_bias: bool,
}

struct LowRankBack<'a> {
    /// `Aᵀ`.
    back_a: Panels,
    /// `s Bᵀ`.
    back_b: Panels,
    mask: Option<Mask>,
    /// `s drop(x) A`.
    inner: &'a [f32],
    of_factors: bool,
}

/// Some rows, and the sums over them.
struct Chunk<'a> {
    task: &'a Task<'a>,
    rows: Range<usize>,
    of_input: Option<Shared>,
    sums: &'a mut [Vec<f32>; 3],
}

impl WithSimd for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task, rows, of_input, sums } = self;
        let mut scratch = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = rows.end.min(start + BLOCK);
            task.block(simd, start..end, of_input, sums, &mut scratch);
            start = end;
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn block<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        of_input: Option<Shared>,
        [of_bias, of_a, of_b]: &mut [Vec<f32>; 3],
        scratch: &mut Vec<f32>,
    ) {
        let &Self { d_in, d_out, .. } = self;
        let own = rows.start * d_out..rows.end * d_out;
        let gradient = &self.gradient[own.clone()];
        let gradient = match self.product {
            None => gradient,
            Some((activation, product)) => {
                scratch.resize(gradient.len(), 0.0);
                before_activation(simd, activation, &product[own], gradient, scratch);
                &scratch[..]
            }
        };
        if self.of_bias {
            for row in gradient.chunks(d_out) {
                for (sum, value) in of_bias.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        }
        // s dy Bᵀ.
        let inner = self.low_rank.as_ref().map(|part| {
            let rank = part.back_b.columns();
            let mut inner = vec![0.0; rows.len() * rank];
            let terms = [Term::new(gradient, &part.back_b)];
            let products = Products { terms: &terms, start: Start::Zero };
            let panels = 0..part.back_b.count();
            // SAFETY: the whole of a vector of this task.
            unsafe { products.run(simd, rows.len(), panels, inner.as_mut_ptr(), rank) };
            inner
        });
        if let (Some(part), Some(inner), Some(x)) = (&self.low_rank, &inner, self.x)
            && part.of_factors
        {
            let rank = part.back_b.columns();
            let x = &x[rows.start * d_in..rows.end * d_in];
            let masked = part.mask.map(|mask| masked(simd, mask, x, d_in, rows.start));
            let x = masked.as_deref().unwrap_or(x);
            transposed_sum(simd, inner, x, [rows.len(), rank, d_in], of_a);
            let forward = &part.inner[rows.start * rank..rows.end * rank];
            transposed_sum(simd, forward, gradient, [rows.len(), rank, d_out], of_b);
        }
        let (Some(weight), Some(of_input)) = (self.weight, of_input) else { return };
        // SAFETY: these rows are this task's.
        let out = unsafe { of_input.part(rows.start * d_in..rows.end * d_in) };
        let mut terms = vec![Term::new(gradient, weight)];
        let mut start = Start::Zero;
        if let (Some(part), Some(inner)) = (&self.low_rank, &inner) {
            let term = Term::new(inner, &part.back_a);
            match part.mask {
                None => terms.push(term),
                Some(mask) => {
                    // What reaches `x` through the factors is dropped where `x` was.
                    let terms = [term];
                    let products = Products { terms: &terms, start };
                    let panels = 0..part.back_a.count();
                    // SAFETY: `out` is these rows.
                    unsafe { products.run(simd, rows.len(), panels, out.as_mut_ptr(), d_in) };
                    for (number, row) in out.chunks_mut(d_in).enumerate() {
                        mask.apply(simd, rows.start + number, row);
                    }
                    start = Start::Output;
                }
            }
        }
        let products = Products { terms: &terms, start };
        // SAFETY: `out` is these rows.
        unsafe { products.run(simd, rows.len(), 0..weight.count(), out.as_mut_ptr(), d_in) };
    }
}

/// The gradient of what an activation was given.
#[inline(always)]
fn before_activation<S: Simd>(
    simd: S,
    activation: Activation,
    product: &[f32],
    gradient: &[f32],
    out: &mut [f32],
) {
    let lanes = S::F32_LANES;
    let each = product.chunks(lanes).zip(gradient.chunks(lanes)).zip(out.chunks_mut(lanes));
    for ((product, gradient), out) in each {
        let [_, slope] = activation.with_slope(Lanes::load(simd, product));
        (slope * Lanes::load(simd, gradient)).store(out);
    }
}
