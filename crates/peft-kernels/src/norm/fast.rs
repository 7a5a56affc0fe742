//! Norms with a backward pass of their own, row by row.

use std::ops::Range;

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::Norm;
use crate::Dropout;
use crate::fused::{
    Array, Operation, Saved, Shared, apply, chunks, filled, grid, matrix, numbers, output, summed,
};
use crate::simd::{Lanes, random::Mask, run};

pub(super) fn norm(
    norm: Norm,
    residual: Option<Tensor<2>>,
    x: Tensor<2>,
    dropout: Option<Dropout>,
) -> Tensor<2> {
    let Norm { gain, bias, epsilon, centred } = norm;
    let operation = Normed {
        epsilon: epsilon as f32,
        centred,
        of_sum: residual.is_some(),
        has_bias: bias.is_some(),
        mask: dropout.map(Dropout::mask),
    };
    let vectors = [Some(gain), bias].into_iter().flatten().map(Tensor::into_dispatch);
    let inputs = [x.into_dispatch()].into_iter().chain(residual.map(Tensor::into_dispatch));
    apply(operation, inputs.chain(vectors))
}

/// The inputs are `x`, the residual if there is one, the gain, and the bias if there is one.
#[derive(Debug)]
struct Normed {
    epsilon: f32,
    centred: bool,
    of_sum: bool,
    has_bias: bool,
    mask: Option<Mask>,
}

impl Normed {
    /// Where the gain is among the inputs.
    fn gain(&self) -> usize {
        1 + usize::from(self.of_sum)
    }

    /// The norm, and the sum that it is of.
    fn of(
        &self,
        x: &Array,
        residual: Option<&Array>,
        gain: &Array,
        bias: Option<&Array>,
    ) -> (Array, Array) {
        let (x, [tokens, d]) = matrix(x);
        let residual = residual.map(Array::to_contiguous);
        let (gain, bias) = (gain.to_contiguous(), bias.map(Array::to_contiguous));
        let mut y = Vec::new();
        let all = |sum: Option<Shared>, y: Shared| {
            grid(tokens, 1, |rows, _| {
                run(Forward {
                    norm: self,
                    x: numbers(&x),
                    residual: residual.as_ref().map(numbers),
                    vectors: (numbers(&gain), bias.as_ref().map(numbers)),
                    rows,
                    sum,
                    y,
                });
            });
        };
        // SAFETY: every task writes its rows.
        let sum = unsafe {
            match residual {
                Some(_) => output(
                    filled(tokens * d, |sum| y = filled(tokens * d, |y| all(Some(sum), y))),
                    [tokens, d],
                ),
                None => {
                    y = filled(tokens * d, |y| all(None, y));
                    x.clone()
                }
            }
        };
        (output(y, [tokens, d]), sum)
    }
}

impl Operation for Normed {
    fn names(&self) -> [&'static str; 2] {
        ["norm", "norm, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let residual = self.of_sum.then(|| &inputs[1]);
        let bias = self.has_bias.then(|| &inputs[self.gain() + 1]);
        let (y, sum) = self.of(&inputs[0], residual, &inputs[self.gain()], bias);
        (y, vec![sum])
    }

    fn needs(&self, input: usize) -> bool {
        // The bias is for the output alone, which is computed again.
        input >= self.gain()
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        let (sum, [tokens, d]) = matrix(&saved.values[0]);
        let gradient = gradient.to_contiguous();
        let gain = saved.input(self.gain()).to_contiguous();
        let of_vectors = wanted[self.gain()..].iter().any(|wanted| *wanted);
        let sizes = if of_vectors { [d; 2] } else { [0; 2] };
        let mut partial = Vec::new();
        let all = |of_sum: Shared, of_x: Option<Shared>| {
            chunks(tokens, |rows| {
                let mut sums = sizes.map(|size| vec![0.0; size]);
                run(Backward {
                    norm: self,
                    sum: numbers(&sum),
                    gradient: numbers(&gradient),
                    gain: numbers(&gain),
                    rows,
                    of_sum,
                    of_x,
                    sums: of_vectors.then_some(&mut sums),
                });
                sums
            })
        };
        let mut of_x = None;
        // SAFETY: every chunk writes its rows.
        let of_sum = unsafe {
            filled(tokens * d, |of_sum| match self.mask {
                None => partial = all(of_sum, None),
                Some(_) => {
                    let out = filled(tokens * d, |of_x| partial = all(of_sum, Some(of_x)));
                    of_x = Some(output(out, [tokens, d]));
                }
            })
        };
        let of_sum = output(of_sum, [tokens, d]);
        let [of_gain, of_bias] = summed(partial, sizes);
        let mut gradients = vec![Some(of_x.unwrap_or_else(|| of_sum.clone()))];
        if self.of_sum {
            gradients.push(Some(of_sum));
        }
        gradients.push(of_vectors.then(|| output(of_gain, [d])));
        if self.has_bias {
            gradients.push(of_vectors.then(|| output(of_bias, [d])));
        }
        gradients
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn again(&self, saved: &Saved) -> Array {
        let bias = self.has_bias.then(|| saved.input(self.gain() + 1));
        self.of(&saved.values[0], None, saved.input(self.gain()), bias).0
    }
}

/// The mean, or zero, and the factor that makes the mean square one.
#[inline(always)]
fn statistics<S: Simd>(simd: S, row: &[f32], norm: &Normed) -> [f32; 2] {
    let lanes = S::F32_LANES;
    let count = row.len() as f32;
    let mut mean = 0.0;
    if norm.centred {
        let mut sum = Lanes::splat(simd, 0.0);
        for part in row.chunks(lanes) {
            sum = sum + Lanes::load(simd, part);
        }
        mean = sum.sum() / count;
    }
    let mut squares = Lanes::splat(simd, 0.0);
    for part in row.chunks_exact(lanes) {
        let centred = Lanes::load(simd, part) - Lanes::splat(simd, mean);
        squares = centred.mul_add(centred, squares);
    }
    let mut squares = squares.sum();
    for value in row.chunks_exact(lanes).remainder() {
        squares += (value - mean) * (value - mean);
    }
    [mean, 1.0 / (squares / count + norm.epsilon).sqrt()]
}

struct Forward<'a> {
    norm: &'a Normed,
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    vectors: (&'a [f32], Option<&'a [f32]>),
    rows: Range<usize>,
    sum: Option<Shared>,
    y: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { norm, x, residual, vectors: (gain, bias), rows, sum, y } = self;
        let (d, lanes) = (gain.len(), S::F32_LANES);
        for number in rows {
            let place = number * d..(number + 1) * d;
            // SAFETY: this row is this task's.
            let y = unsafe { y.part(place.clone()) };
            let x = &x[place.clone()];
            let row = match (residual, sum) {
                (Some(residual), Some(sum)) => {
                    // SAFETY: as above.
                    let sum = unsafe { sum.part(place.clone()) };
                    sum.copy_from_slice(x);
                    if let Some(mask) = norm.mask {
                        mask.apply(simd, number, sum);
                    }
                    let parts = sum.chunks_mut(lanes).zip(residual[place].chunks(lanes));
                    for (sum, residual) in parts {
                        (Lanes::load(simd, sum) + Lanes::load(simd, residual)).store(sum);
                    }
                    &*sum
                }
                _ => x,
            };
            let [mean, scale] = statistics(simd, row, norm);
            let (mean, scale) = (Lanes::splat(simd, mean), Lanes::splat(simd, scale));
            let mut column = 0;
            while column < d {
                let end = d.min(column + lanes);
                let unit = (Lanes::load(simd, &row[column..end]) - mean) * scale;
                let bias = match bias {
                    Some(bias) => Lanes::load(simd, &bias[column..end]),
                    None => unit.all(0.0),
                };
                let value = unit.mul_add(Lanes::load(simd, &gain[column..end]), bias);
                value.store(&mut y[column..end]);
                column = end;
            }
        }
    }
}

struct Backward<'a> {
    norm: &'a Normed,
    sum: &'a [f32],
    gradient: &'a [f32],
    gain: &'a [f32],
    rows: Range<usize>,
    of_sum: Shared,
    of_x: Option<Shared>,
    sums: Option<&'a mut [Vec<f32>; 2]>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { norm, sum, gradient, gain, rows, of_sum, of_x, mut sums } = self;
        let (d, lanes) = (gain.len(), S::F32_LANES);
        for number in rows {
            let place = number * d..(number + 1) * d;
            let (row, gradient) = (&sum[place.clone()], &gradient[place.clone()]);
            let [mean, scale] = statistics(simd, row, norm);
            let (mean, scale) = (Lanes::splat(simd, mean), Lanes::splat(simd, scale));
            let [mut total, mut along] = [Lanes::splat(simd, 0.0); 2];
            let mut column = 0;
            while column < d {
                let part = column..d.min(column + lanes);
                let above = Lanes::load(simd, &gradient[part.clone()]);
                // Behind a row's end the gradient is zero, whatever the unit is.
                let unit = (Lanes::load(simd, &row[part.clone()]) - mean) * scale;
                let scaled = above * Lanes::load(simd, &gain[part.clone()]);
                total = total + scaled;
                along = scaled.mul_add(unit, along);
                if let Some([of_gain, of_bias]) = &mut sums {
                    let sum = Lanes::load(simd, &of_gain[part.clone()]);
                    above.mul_add(unit, sum).store(&mut of_gain[part.clone()]);
                    let sum = Lanes::load(simd, &of_bias[part.clone()]);
                    (sum + above).store(&mut of_bias[part.clone()]);
                }
                column = part.end;
            }
            let total = if norm.centred { total.sum() / d as f32 } else { 0.0 };
            let total = Lanes::splat(simd, total);
            let along = Lanes::splat(simd, along.sum() / d as f32);
            // SAFETY: this row is this task's.
            let out = unsafe { of_sum.part(place.clone()) };
            let mut column = 0;
            while column < d {
                let part = column..d.min(column + lanes);
                let unit = (Lanes::load(simd, &row[part.clone()]) - mean) * scale;
                let above = Lanes::load(simd, &gradient[part.clone()]);
                let scaled = above * Lanes::load(simd, &gain[part.clone()]);
                ((scaled - total - unit * along) * scale).store(&mut out[part.clone()]);
                column = part.end;
            }
            if let (Some(mask), Some(of_x)) = (norm.mask, of_x) {
                // SAFETY: as above.
                let of_x = unsafe { of_x.part(place) };
                of_x.copy_from_slice(out);
                mask.apply(simd, number, of_x);
            }
        }
    }
}
