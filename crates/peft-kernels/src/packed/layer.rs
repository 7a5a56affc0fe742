//! A product with a packed matrix and what a layer computes beside it, off the tape.

use std::ops::Range;

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::PackedMatrix;
use super::few::Few;
use super::many::Many;
use super::narrow::narrow;
use crate::Activation;
use crate::decode::{is_untracked, team};
use crate::fused::{Array, Operation, Saved, Shared, apply, filled, grid, matrix, numbers, output};
use crate::linear::LinearParts;
use crate::simd::{Lanes, run};

/// The most rows for which blocks are read anew for each few of them.
const FEW: usize = 16;

/// Multiplications from which on all cores are worth it.
const SHARED: usize = 1 << 15;

/// Whether nothing of a layer is on a tape, and all of it f32 on the CPU.
pub(super) fn is_supported(x: &Tensor<2>, parts: &LinearParts) -> bool {
    let LinearParts { bias, low_rank, activation } = parts;
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
    let LinearParts { bias, low_rank, activation } = parts;
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
    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (x, [rows, width]) = matrix(&inputs[0]);
        let [d_in, d_out] = self.weight.product_shape();
        assert_eq!(width, d_in, "an input as wide as the weight is high");
        let bias = self.has_bias.then(|| inputs[1].to_contiguous());
        let bias = bias.as_ref().map(numbers);
        let at = 1 + usize::from(self.has_bias);
        let factors = self.scale.map(|scale| {
            let ((a, [_, rank]), (b, _)) = (matrix(&inputs[at]), matrix(&inputs[at + 1]));
            (narrow(numbers(&x), numbers(&a), [rows, d_in, rank], scale), b)
        });
        let low_rank = factors.as_ref().map(|(inner, b)| (&inner[..], numbers(b)));
        let end = End { d_out, bias, low_rank, activation: self.activation };
        let x = numbers(&x);
        let few = self.weight.is_transposed() && rows <= FEW;
        let all = |out: Shared| {
            if few {
                let weight = self.weight.tensor();
                let task = |outputs: Range<usize>| {
                    Few { x, rows, weight, outputs: outputs.clone(), out }.run();
                    run(EndTask { end, rows: 0..rows, columns: outputs, out });
                };
                // Whole registers of outputs, some for each thread to take as it comes.
                let size = d_out.div_ceil(4 * team::size()).next_multiple_of(16);
                match rows * d_in * d_out {
                    small if small < SHARED => task(0..d_out),
                    _ => team::share(d_out.div_ceil(size), |number| {
                        task(number * size..d_out.min((number + 1) * size));
                    }),
                }
                return;
            }
            Many { x, rows, weight: &self.weight, bias, low_rank }.run(out);
            if self.activation.is_some() {
                let end = End { bias: None, low_rank: None, ..end };
                grid(rows, 1, |rows, _| {
                    run(EndTask { end, rows, columns: 0..d_out, out });
                });
            }
        };
        // SAFETY: every task writes its columns, and together these are all.
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
            for (number, values) in values.chunks_mut(S::F32_LANES).enumerate() {
                let first = columns.start + number * S::F32_LANES;
                let range = first..first + values.len();
                let mut value = Lanes::load(simd, values);
                if let Some(bias) = bias {
                    value = value + Lanes::load(simd, &bias[range.clone()]);
                }
                if let Some((inner, b)) = low_rank {
                    let rank = b.len() / d_out;
                    for (number, inner) in inner[row * rank..(row + 1) * rank].iter().enumerate() {
                        let line = &b[number * d_out..(number + 1) * d_out];
                        let line = Lanes::load(simd, &line[range.clone()]);
                        value = line.mul_add(line.all(*inner), value);
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
