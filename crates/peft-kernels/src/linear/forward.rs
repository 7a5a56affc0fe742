//! The layer itself, block of rows by block of rows.

use std::ops::Range;

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::LinearParts;
use crate::fused::{
    Array, Operation, Saved, Shared, apply, filled, grid, is_fast, matrix, numbers, output,
};
use crate::matmul::{Panels, Products, Source, Start, Term};
use crate::simd::{Lanes, random::Mask, run};
use crate::weight::PackedWeight;
use crate::{Activation, PrepackedMatrix};

/// A linear layer with its parts.
///
/// # Panics
/// If the input is not as wide as the weight is high.
pub(crate) fn linear(x: Tensor<2>, weight: &PrepackedMatrix, parts: LinearParts) -> Tensor<2> {
    let ([_, d_in], [rows, _]) = (x.dims(), weight.dims());
    assert_eq!(d_in, rows, "an input as wide as the weight is high");
    let has = parts.low_rank.as_ref();
    let is_f32 = |tensor: &Tensor<2>| is_fast(tensor);
    if !is_f32(&x) || has.is_some_and(|part| !is_f32(&part.a) || !is_f32(&part.b)) {
        let dense = weight.dense().cast(x.dtype());
        return parts.over(burn::tensor::module::linear(x.clone(), dense, None), x);
    }
    let LinearParts { bias, low_rank, activation, is_unread } = parts;
    let fused = activation.filter(|activation| activation.is_fast());
    let operation = Linear {
        weight: weight.clone(),
        has_bias: bias.is_some(),
        low_rank: low_rank.as_ref().map(|part| LowRank {
            scale: part.scale as f32,
            mask: part.dropout.map(crate::Dropout::mask),
        }),
        activation: fused,
        // An activation's slope is that at the product.
        is_unread: is_unread && activation.is_none(),
    };
    let mut inputs = vec![x.into_dispatch()];
    inputs.extend(bias.map(Tensor::into_dispatch));
    if let Some(part) = low_rank {
        inputs.extend([part.a.into_dispatch(), part.b.into_dispatch()]);
    }
    let y = apply(operation, inputs);
    match activation.filter(|activation| !activation.is_fast()) {
        Some(activation) => activation.forward(y),
        None => y,
    }
}

/// `x W`, on no tape.
pub(crate) fn product(x: &Array, weight: &PrepackedMatrix) -> Array {
    let weight = weight.clone();
    let operation =
        Linear { weight, has_bias: false, low_rank: None, activation: None, is_unread: false };
    operation.forward(std::slice::from_ref(x)).0
}

/// The operation. Its inputs are `x`, the bias if there is one, and `A` and `B` if there are any.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: PrepackedMatrix,
    pub(super) has_bias: bool,
    pub(super) low_rank: Option<LowRank>,
    pub(super) activation: Option<Activation>,
    pub(super) is_unread: bool,
}

/// What is known of a low-rank part beside its factors.
#[derive(Debug)]
pub(super) struct LowRank {
    pub(super) scale: f32,
    pub(super) mask: Option<Mask>,
}

impl Linear {
    /// Where `A` is among the inputs.
    pub(super) fn factors(&self) -> usize {
        1 + usize::from(self.has_bias)
    }
}

impl Operation for Linear {
    fn names(&self) -> [&'static str; 2] {
        ["linear", "linear, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (x, [tokens, d_in]) = matrix(&inputs[0]);
        let [_, d_out] = self.weight.dims();
        let bias = self.has_bias.then(|| inputs[1].to_contiguous());
        let factors = self.low_rank.as_ref().map(|part| {
            let at = self.factors();
            let (a, shape) = matrix(&inputs[at]);
            let (b, [rank, _]) = matrix(&inputs[at + 1]);
            let a = Panels::scaled(Source::new(numbers(&a), shape), part.scale);
            (a, Panels::new(Source::new(numbers(&b), [rank, d_out])), part.mask)
        });
        let layer = Forward {
            x: numbers(&x),
            d_in,
            weight: self.weight.forward(),
            bias: bias.as_ref().map(numbers),
            activation: self.activation,
        };
        // SAFETY: every task writes its rows, of every column.
        unsafe {
            let inner = factors.as_ref().map(|(a, _, mask)| {
                filled(tokens * a.columns(), |inner| {
                    grid(tokens, 1, |rows, _| {
                        run(Inner { x: layer.x, d_in, a, mask: *mask, rows, out: inner });
                    });
                })
            });
            let low =
                factors.as_ref().zip(inner.as_ref()).map(|((_, b, _), inner)| (&inner[..], b));
            let mut activated = None;
            let product = match self.is_unread {
                true => vec![0.0; tokens * d_out],
                false => filled(tokens * d_out, |product| {
                    let all = |activated: Option<Shared>| {
                        grid(tokens, layer.weight.count(), |rows, panels| {
                            run(Task { layer: &layer, low, rows, panels, product, activated });
                        });
                    };
                    match self.activation {
                        Some(_) => {
                            activated =
                                Some(filled(tokens * d_out, |activated| all(Some(activated))));
                        }
                        None => all(None),
                    }
                }),
            };
            let mut saved = Vec::new();
            let y = match activated {
                Some(activated) => {
                    saved.push(output(product, [tokens, d_out]));
                    activated
                }
                None => product,
            };
            if let Some(inner) = inner {
                let rank = factors.as_ref().map_or(0, |(a, ..)| a.columns());
                saved.push(output(inner, [tokens, rank]));
            }
            (output(y, [tokens, d_out]), saved)
        }
    }

    fn needs(&self, input: usize) -> bool {
        // The bias is never needed; `x` and the factors are for the gradients of the factors.
        self.low_rank.is_some() && (input == 0 || input >= self.factors())
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        super::backward::backward(self, saved, &gradient, wanted)
    }
}

/// `s drop(x) A` of some rows.
pub(crate) struct Inner<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) d_in: usize,
    pub(crate) a: &'a Panels,
    pub(crate) mask: Option<Mask>,
    pub(crate) rows: Range<usize>,
    pub(crate) out: Shared,
}

impl WithSimd for Inner<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, d_in, a, mask, rows, out } = self;
        let own = &x[rows.start * d_in..rows.end * d_in];
        let masked = mask.map(|mask| masked(simd, mask, own, d_in, rows.start));
        let terms = [Term::new(masked.as_deref().unwrap_or(own), a)];
        let products = Products { terms: &terms, start: Start::Zero };
        let rank = a.columns();
        // SAFETY: these rows are this task's.
        unsafe {
            let out = out.part(rows.start * rank..rows.end * rank).as_mut_ptr();
            products.run(simd, rows.len(), 0..a.count(), out, rank);
        }
    }
}

/// Rows with some of their numbers dropped; the first of them is the row `first` of the mask.
#[inline(always)]
pub(super) fn masked<S: Simd>(
    simd: S,
    mask: Mask,
    rows: &[f32],
    columns: usize,
    first: usize,
) -> Vec<f32> {
    let mut rows = rows.to_vec();
    for (number, row) in rows.chunks_mut(columns).enumerate() {
        mask.apply(simd, first + number, row);
    }
    rows
}

/// What tasks share.
struct Forward<'a> {
    x: &'a [f32],
    d_in: usize,
    weight: &'a Panels,
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
}

/// Some rows and panels of the layer's output.
struct Task<'a> {
    layer: &'a Forward<'a>,
    low: Option<(&'a [f32], &'a Panels)>,
    rows: Range<usize>,
    panels: Range<usize>,
    product: Shared,
    activated: Option<Shared>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, low, rows, panels, product, activated } = self;
        let Forward { x, d_in, weight, bias, activation } = *layer;
        let d_out = weight.columns();
        let term = Term::new(&x[rows.start * d_in..rows.end * d_in], weight);
        let mut terms = vec![term];
        if let Some((inner, b)) = low {
            let rank = b.depth();
            terms.push(Term::new(&inner[rows.start * rank..rows.end * rank], b));
        }
        let start = bias.map_or(Start::Zero, Start::Bias);
        let first = rows.start * d_out;
        // SAFETY: these panels of these rows are this task's.
        unsafe {
            let out = product.part(first..rows.end * d_out).as_mut_ptr();
            let products = Products { terms: &terms, start };
            products.run(simd, rows.len(), panels.clone(), out, d_out);
        }
        let (Some(activation), Some(activated)) = (activation, activated) else { return };
        let columns = weight.columns_of(panels.start).start..weight.columns_of(panels.end - 1).end;
        for row in rows {
            let place = row * d_out + columns.start..row * d_out + columns.end;
            // SAFETY: as above; the products of these columns are written.
            let (from, to) = unsafe { (product.part(place.clone()), activated.part(place)) };
            let lanes = S::F32_LANES;
            for (from, to) in from.chunks(lanes).zip(to.chunks_mut(lanes)) {
                let [value, _] = activation.with_slope(Lanes::load(simd, from));
                value.store(to);
            }
        }
    }
}
