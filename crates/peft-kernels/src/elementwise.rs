//! Functions of each number.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::tensor::{Shape, Tensor, TensorData};
use pulp::{Simd, WithSimd};

use crate::fused::{Array, Operation, Saved, Shared, apply, filled, grid, numbers};
use crate::simd::{Lanes, random::Mask, run};
use crate::{Activation, Dropout};

/// An activation of each number.
pub(crate) fn activated<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    apply(Activated(activation), [x.into_dispatch()])
}

/// Numbers of `[.., columns]`, some dropped.
pub(crate) fn dropped<const D: usize>(dropout: Dropout, x: Tensor<D>) -> Tensor<D> {
    apply(Dropped(dropout.mask()), [x.into_dispatch()])
}

/// `f(a) ⊙ b`.
pub(crate) fn gated<const D: usize>(f: Activation, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    apply(Gated(f), [a.into_dispatch(), b.into_dispatch()])
}

/// `a + drop(b)`.
pub(crate) fn sum<const D: usize>(
    a: Tensor<D>,
    b: Tensor<D>,
    dropout: Option<Dropout>,
) -> Tensor<D> {
    apply(Sum(dropout.map(Dropout::mask)), [a.into_dispatch(), b.into_dispatch()])
}

/// A function of a register of numbers from each input.
trait Function<const N: usize>: Sync {
    fn of<S: Simd>(&self, inputs: [Lanes<S>; N]) -> Lanes<S>;
}

/// The function of each number of arrays of one shape.
fn mapped<const N: usize>(arrays: [&Array; N], function: &impl Function<N>) -> Array {
    let arrays = arrays.map(Array::to_contiguous);
    let inputs = arrays.each_ref().map(numbers);
    of_parts(arrays[0].shape(), 1, |range, out| {
        run(Map { inputs: inputs.map(|input| &input[range.clone()]), out, function });
    })
}

struct Map<'a, F, const N: usize> {
    inputs: [&'a [f32]; N],
    out: &'a mut [f32],
    function: &'a F,
}

impl<F: Function<N>, const N: usize> WithSimd for Map<'_, F, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { inputs, out, function } = self;
        let mut place = 0;
        while place < out.len() {
            let end = out.len().min(place + S::F32_LANES);
            let mut lanes = [Lanes::splat(simd, 0.0); N];
            for (lanes, input) in lanes.iter_mut().zip(inputs) {
                *lanes = Lanes::load(simd, &input[place..end]);
            }
            function.of(lanes).store(&mut out[place..end]);
            place = end;
        }
    }
}

/// Numbers that one task computes.
const PART: usize = 1 << 14;

/// An array of this shape whose numbers `f` writes, some rows of `columns` at a time.
fn of_parts(shape: Shape, columns: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Array {
    let count = shape.num_elements();
    let part = (PART / columns.max(1)).max(1) * columns;
    let each = |out: Shared| {
        grid(1, count.div_ceil(part.max(1)), |_, parts| {
            let range = parts.start * part..count.min(parts.end * part);
            // SAFETY: no two tasks have the same part.
            f(range.clone(), unsafe { out.part(range) });
        });
    };
    // SAFETY: the parts are all of it, and each task writes its own.
    let values = unsafe { filled(count, each) };
    Array::from_data(TensorData::new(values, shape))
}

/// Two functions of a register of numbers from each of three inputs.
trait TwoFunctions: Sync {
    fn of<S: Simd>(&self, inputs: [Lanes<S>; 3]) -> [Lanes<S>; 2];
}

/// The functions of each number of arrays of one shape.
fn mapped_to_two(arrays: [&Array; 3], functions: &impl TwoFunctions) -> [Array; 2] {
    let arrays = arrays.map(Array::to_contiguous);
    let inputs = arrays.each_ref().map(numbers);
    let shape = arrays[0].shape();
    let mut other = vec![0.0; shape.num_elements()];
    let others = Shared::of(&mut other);
    let first = of_parts(shape.clone(), 1, |range, out| {
        let inputs = inputs.map(|input| &input[range.clone()]);
        // SAFETY: no two tasks have the same part.
        let outs = [out, unsafe { others.part(range) }];
        run(MapToTwo { inputs, outs, functions });
    });
    [first, Array::from_data(TensorData::new(other, shape))]
}

struct MapToTwo<'a, F> {
    inputs: [&'a [f32]; 3],
    outs: [&'a mut [f32]; 2],
    functions: &'a F,
}

impl<F: TwoFunctions> WithSimd for MapToTwo<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { inputs, outs: [first, second], functions } = self;
        let mut place = 0;
        while place < first.len() {
            let range = place..first.len().min(place + S::F32_LANES);
            let lanes = inputs.map(|input| Lanes::load(simd, &input[range.clone()]));
            let [a, b] = functions.of(lanes);
            a.store(&mut first[range.clone()]);
            b.store(&mut second[range.clone()]);
            place = range.end;
        }
    }
}

#[derive(Debug)]
struct Activated(Activation);

struct Value(Activation);
struct Slope(Activation);

impl Function<1> for Value {
    #[inline(always)]
    fn of<S: Simd>(&self, [x]: [Lanes<S>; 1]) -> Lanes<S> {
        self.0.with_slope(x)[0]
    }
}

impl Function<2> for Slope {
    #[inline(always)]
    fn of<S: Simd>(&self, [x, gradient]: [Lanes<S>; 2]) -> Lanes<S> {
        self.0.with_slope(x)[1] * gradient
    }
}

impl Operation for Activated {
    fn names(&self) -> [&'static str; 2] {
        ["activation", "activation, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        (mapped([&inputs[0]], &Value(self.0)), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        true
    }

    fn backward(&self, saved: &Saved, gradient: Array, _wanted: &[bool]) -> Vec<Option<Array>> {
        vec![Some(mapped([saved.input(0), &gradient], &Slope(self.0)))]
    }
}

#[derive(Debug)]
struct Gated(Activation);

struct Product(Activation);
struct OfGate(Activation);

impl Function<2> for Product {
    #[inline(always)]
    fn of<S: Simd>(&self, [a, b]: [Lanes<S>; 2]) -> Lanes<S> {
        self.0.with_slope(a)[0] * b
    }
}

impl Function<3> for OfGate {
    #[inline(always)]
    fn of<S: Simd>(&self, [a, b, gradient]: [Lanes<S>; 3]) -> Lanes<S> {
        self.0.with_slope(a)[1] * b * gradient
    }
}

/// Both gradients, for which the function and its slope are computed once.
struct OfBoth(Activation);

impl TwoFunctions for OfBoth {
    #[inline(always)]
    fn of<S: Simd>(&self, [a, b, gradient]: [Lanes<S>; 3]) -> [Lanes<S>; 2] {
        let [value, slope] = self.0.with_slope(a);
        [slope * b * gradient, value * gradient]
    }
}

impl Operation for Gated {
    fn names(&self) -> [&'static str; 2] {
        ["gated activation", "gated activation, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        (mapped([&inputs[0], &inputs[1]], &Product(self.0)), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        true
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        let (a, b) = (saved.input(0), saved.input(1));
        if wanted == [true, true] {
            return mapped_to_two([a, b, &gradient], &OfBoth(self.0)).map(Some).into();
        }
        vec![
            wanted[0].then(|| mapped([a, b, &gradient], &OfGate(self.0))),
            wanted[1].then(|| mapped([a, &gradient], &Product(self.0))),
        ]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn again(&self, saved: &Saved) -> Array {
        mapped([saved.input(0), saved.input(1)], &Product(self.0))
    }
}

#[derive(Debug)]
struct Dropped(Mask);

impl Dropped {
    fn of(&self, array: &Array) -> Array {
        let shape = array.shape();
        let columns = shape[shape.num_dims() - 1];
        let array = array.to_contiguous();
        let from = numbers(&array);
        of_parts(shape, columns, |range, out| {
            out.copy_from_slice(&from[range.clone()]);
            run(Masked { mask: self.0, columns, first: range.start / columns, rows: out });
        })
    }
}

struct Masked<'a> {
    mask: Mask,
    columns: usize,
    first: usize,
    rows: &'a mut [f32],
}

impl WithSimd for Masked<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (number, row) in self.rows.chunks_mut(self.columns).enumerate() {
            self.mask.apply(simd, self.first + number, row);
        }
    }
}

impl Operation for Dropped {
    fn names(&self) -> [&'static str; 2] {
        ["dropout", "dropout, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        (self.of(&inputs[0]), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, _saved: &Saved, gradient: Array, _wanted: &[bool]) -> Vec<Option<Array>> {
        vec![Some(self.of(&gradient))]
    }
}

#[derive(Debug)]
struct Sum(Option<Mask>);

impl Function<2> for Sum {
    #[inline(always)]
    fn of<S: Simd>(&self, [a, b]: [Lanes<S>; 2]) -> Lanes<S> {
        a + b
    }
}

impl Operation for Sum {
    fn names(&self) -> [&'static str; 2] {
        ["sum", "sum, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let sum = match self.0 {
            None => mapped([&inputs[0], &inputs[1]], self),
            Some(mask) => mapped([&inputs[0], &Dropped(mask).of(&inputs[1])], self),
        };
        (sum, Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, _saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        let of_b = match self.0 {
            Some(mask) => wanted[1].then(|| Dropped(mask).of(&gradient)),
            None => Some(gradient.clone()),
        };
        vec![Some(gradient), of_b]
    }
}
