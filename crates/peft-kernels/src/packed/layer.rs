//! A product with a packed matrix and what a layer computes beside it, off the tape.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::PackedMatrix;
use super::few::Few;
use super::many::Many;
use super::narrow::{NarrowRow, narrow_rows};
use crate::Activation;
use crate::decode::{is_untracked, team};
use crate::fused::{Array, Operation, Saved, Shared, apply, filled, grid, matrix, numbers, output};
use crate::linear::LinearParts;
use crate::simd::{Lanes, prefetch, run};

/// The most rows for which blocks are read anew for each few of them.
const FEW: usize = 16;

/// Parts in which the narrow side of a row is computed, whoever does.
const PARTS: usize = 4;

/// Multiplications from which on all cores are worth it.
const SHARED: usize = 1 << 15;

/// Whether nothing of a layer is on a tape, and all of it f32 on the CPU.
pub(super) fn is_supported(x: &Tensor<2>, parts: &LinearParts) -> bool {
    let LinearParts { bias, low_rank, activation, .. } = parts;
    let is_plain = low_rank.as_ref().is_none_or(|part| {
        part.dropout.is_none() && [&part.a, &part.b].into_iter().all(is_untracked)
    });
    is_untracked(x)
        && is_plain
        && bias.as_ref().is_none_or(is_untracked)
        && activation.is_none_or(Activation::is_fast)
}

/// The layer, where that [is supported](is_supported).
pub(super) fn layer(x: Tensor<2>, weight: &PackedMatrix, parts: LinearParts) -> Tensor<2> {
    let LinearParts { bias, low_rank, activation, .. } = parts;
    let scale = low_rank.as_ref().map(|part| part.scale as f32);
    let layer = Layer { weight: weight.clone(), has_bias: bias.is_some(), scale, activation };
    let mut inputs = vec![x.into_dispatch()];
    inputs.extend(bias.map(Tensor::into_dispatch));
    if let Some(part) = low_rank {
        inputs.extend([part.a.into_dispatch(), part.b.into_dispatch()]);
    }
    apply(layer, inputs)
}

/// `x W`.
pub(super) fn product(x: &Array, weight: &PackedMatrix) -> Array {
    let layer = Layer { weight: weight.clone(), has_bias: false, scale: None, activation: None };
    layer.forward(std::slice::from_ref(x)).0
}

/// The operation. Its inputs are `x`, the bias if there is one, and `A` and `B` if there are any.
#[derive(Debug)]
struct Layer {
    weight: PackedMatrix,
    has_bias: bool,
    /// The factor of the low-rank part.
    scale: Option<f32>,
    activation: Option<Activation>,
}

impl Operation for Layer {
    fn names(&self) -> [&'static str; 2] {
        ["linear, packed", "linear, packed, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (x, [rows, width]) = matrix(&inputs[0]);
        let [d_in, d_out] = self.weight.product_shape();
        assert_eq!(width, d_in, "an input as wide as the weight is high");
        let bias = self.has_bias.then(|| inputs[1].to_contiguous());
        let bias = bias.as_ref().map(numbers);
        let at = 1 + usize::from(self.has_bias);
        let factors = self.scale.map(|scale| {
            let ((a, [_, rank]), (b, _)) = (matrix(&inputs[at]), matrix(&inputs[at + 1]));
            (a, b, rank, scale)
        });
        let low_rank = factors.as_ref().map(|(a, b, rank, scale)| {
            let (a, b) = (numbers(a), numbers(b));
            assert!(a.len() == d_in * rank && b.len() == rank * d_out, "factors of the weight");
            LowRank { a, b, rank: *rank, scale: *scale }
        });
        let (x, activation) = (numbers(&x), self.activation);
        let parts = Parts { x, rows, weight: &self.weight, bias, low_rank, activation };
        let few = self.weight.is_transposed() && rows <= FEW;
        let all = |out: Shared| if few { parts.of_few(out) } else { parts.of_many(out) };
        // SAFETY: both write all of it.
        let values = unsafe { filled(rows * d_out, all) };
        (output(values, [rows, d_out]), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, _saved: &Saved, _gradient: Array, _wanted: &[bool]) -> Vec<Option<Array>> {
        unreachable!("only for tensors that are not on a tape")
    }
}

/// A layer and its input.
#[derive(Clone, Copy)]
struct Parts<'a> {
    /// `[rows, d_in]`.
    x: &'a [f32],
    rows: usize,
    weight: &'a PackedMatrix,
    /// `[d_out]`.
    bias: Option<&'a [f32]>,
    low_rank: Option<LowRank<'a>>,
    activation: Option<Activation>,
}

/// `s (x A) B`.
#[derive(Clone, Copy)]
struct LowRank<'a> {
    /// `[d_in, rank]`.
    a: &'a [f32],
    /// `[rank, d_out]`.
    b: &'a [f32],
    rank: usize,
    scale: f32,
}

impl Parts<'_> {
    /// Of a few rows: the narrow side of a low-rank part is computed beside the product, which waits
    /// for the memory, and added as each part of the product is there.
    fn of_few(&self, out: Shared) {
        let &Self { x, rows, weight, bias, low_rank, activation } = self;
        let [d_in, d_out] = weight.product_shape();
        let sums = low_rank.map_or(0, |part| rows * part.rank);
        let mut inner = vec![0.0; PARTS * sums];
        let narrow = Shared::of(&mut inner);
        let narrow_tasks = if low_rank.is_some() { PARTS * rows } else { 0 };
        let done = AtomicUsize::new(0);
        let narrow_row = |number: usize| {
            if let Some(LowRank { a, rank, scale, .. }) = low_rank {
                let (row, part) = (number / PARTS, number % PARTS);
                let of = |part: usize| part * d_in / PARTS;
                let places = of(part)..of(part + 1);
                let first = part * sums + row * rank;
                // SAFETY: no other task has this part of this row.
                let out = unsafe { narrow.part(first..first + rank) };
                let x = &x[row * d_in + places.start..row * d_in + places.end];
                run(NarrowRow { x, a: &a[places.start * rank..places.end * rank], scale, out });
                done.fetch_add(1, Ordering::Release);
            }
        };
        let columns = |outputs: Range<usize>| {
            for line in low_rank.iter().flat_map(|part| part.b.chunks_exact(d_out)) {
                prefetch(&line[outputs.clone()]);
            }
            Few { x, rows, weight: weight.tensor(), outputs: outputs.clone(), out }.run();
            // These tasks are taken after those of the narrow side: somebody is at each of them.
            while done.load(Ordering::Acquire) < narrow_tasks {
                std::hint::spin_loop();
            }
            // SAFETY: the narrow side is there, and nobody writes it any more.
            let parts = unsafe { narrow.written(0..PARTS * sums) };
            let inner: Vec<f32> =
                (0..sums).map(|sum| parts[sum..].iter().step_by(sums).sum()).collect();
            let low_rank = low_rank.map(|part| (&inner[..], part.b));
            let end = End { d_out, bias, low_rank, activation };
            run(EndTask { end, rows: 0..rows, columns: outputs, out });
        };
        if rows * d_in * d_out < SHARED {
            (0..narrow_tasks).for_each(narrow_row);
            columns(0..d_out);
            return;
        }
        // Whole registers of outputs, some for each thread to take as it comes.
        let size = d_out.div_ceil(4 * team::size()).next_multiple_of(16);
        team::share(narrow_tasks + d_out.div_ceil(size), |number| {
            match number.checked_sub(narrow_tasks) {
                None => narrow_row(number),
                Some(number) => columns(number * size..d_out.min((number + 1) * size)),
            }
        });
    }

    /// Of many rows.
    fn of_many(&self, out: Shared) {
        let &Self { x, rows, weight, bias, low_rank, activation } = self;
        let [d_in, d_out] = weight.product_shape();
        let inner = low_rank
            .map(|LowRank { a, rank, scale, .. }| narrow_rows(x, a, [rows, d_in, rank], scale));
        let low_rank = inner.as_deref().zip(low_rank.map(|part| part.b));
        Many { x, rows, weight, bias, low_rank }.run(out);
        if activation.is_some() {
            let end = End { d_out, bias: None, low_rank: None, activation };
            grid(rows, 1, |rows, _| run(EndTask { end, rows, columns: 0..d_out, out }));
        }
    }
}

/// What follows the product.
#[derive(Clone, Copy)]
struct End<'a> {
    d_out: usize,
    bias: Option<&'a [f32]>,
    low_rank: Option<(&'a [f32], &'a [f32])>,
    activation: Option<Activation>,
}

/// The same for some rows and columns.
struct EndTask<'a> {
    end: End<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Shared,
}

impl WithSimd for EndTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { end: End { d_out, bias, low_rank, activation }, rows, columns, out } = self;
        if bias.is_none() && low_rank.is_none() && activation.is_none() {
            return;
        }
        for row in rows {
            let from = row * d_out;
            // SAFETY: these columns of this row are this task's, which has written them.
            let values = unsafe { out.part(from + columns.start..from + columns.end) };
            let mut place = 0;
            while place < columns.len() {
                let range = place..columns.len().min(place + S::F32_LANES);
                let values = &mut values[range.clone()];
                place = range.end;
                let range = columns.start + range.start..columns.start + range.end;
                let mut value = Lanes::load(simd, values);
                if let Some(bias) = bias {
                    value = value + Lanes::load(simd, &bias[range.clone()]);
                }
                if let Some((inner, b)) = low_rank {
                    let rank = b.len() / d_out;
                    for number in 0..rank {
                        let line = number * d_out;
                        let line = Lanes::load(simd, &b[line + range.start..line + range.end]);
                        value = line.mul_add(line.all(inner[row * rank + number]), value);
                    }
                }
                if let Some(activation) = activation {
                    value = activation.with_slope(value)[0];
                }
                value.store(values);
            }
        }
    }
}
