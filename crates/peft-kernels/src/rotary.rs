//! Rotary positions: pairs of channels turned by angles.

use burn::tensor::Tensor;

/// Each head of `[tokens, heads · d_head]` turned by angles with these cosines and sines, `[tokens,
/// 1, d_head / 2]`: channel `i` of a head and channel `i + d_head / 2` are a point in the plane.
pub fn turned(states: Tensor<2>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::fused::is_fast(&states) && [&cos, &sin].into_iter().all(crate::fused::is_fast) {
        return fast::turned(states, cos, sin);
    }
    by_burn(states, cos, sin)
}

fn by_burn(states: Tensor<2>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<2> {
    let ([tokens, width], half) = (states.dims(), cos.dims()[2]);
    let states = states.reshape([tokens, width / (2 * half), 2 * half]);
    let (x, y) = (states.clone().narrow(2, 0, half), states.narrow(2, half, half));
    let turned_x = x.clone() * cos.clone() - y.clone() * sin.clone();
    Tensor::cat(vec![turned_x, y * cos + x * sin], 2).reshape([tokens, width])
}

#[cfg(feature = "flex")]
mod fast {
    use std::ops::Range;

    use burn::tensor::Tensor;
    use pulp::{Simd, WithSimd};

    use crate::fused::{
        Array, Operation, Saved, Shared, apply, filled, grid, matrix, numbers, output,
    };
    use crate::simd::{Lanes, run};

    pub(super) fn turned(states: Tensor<2>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<2> {
        apply(Turned, [states.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()])
    }

    /// The inputs are states, cosines and sines.
    #[derive(Debug)]
    struct Turned;

    impl Operation for Turned {
        fn names(&self) -> [&'static str; 2] {
            ["rotary positions", "rotary positions, backward"]
        }

        fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
            (turn(&inputs[0], &inputs[1], &inputs[2], 1.0), Vec::new())
        }

        fn needs(&self, input: usize) -> bool {
            input > 0
        }

        fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
            // Nobody learns angles.
            let back = || turn(&gradient, saved.input(1), saved.input(2), -1.0);
            vec![wanted[0].then(back), None, None]
        }
    }

    fn turn(states: &Array, cos: &Array, sin: &Array, direction: f32) -> Array {
        let (states, [tokens, width]) = matrix(states);
        let (cos, sin) = (cos.to_contiguous(), sin.to_contiguous());
        let half = cos.layout().shape()[2];
        let angles = [numbers(&cos), numbers(&sin)];
        assert!(angles.iter().all(|angles| angles.len() == tokens * half), "angles of each token");
        assert!(width.is_multiple_of(2 * half), "whole heads");
        let all = |out: Shared| {
            grid(tokens, 1, |rows, _| {
                let states = &numbers(&states)[rows.start * width..rows.end * width];
                // SAFETY: these rows are this task's.
                let out = unsafe { out.part(rows.start * width..rows.end * width) };
                run(Task { states, angles, rows, half, direction, out });
            });
        };
        // SAFETY: every task writes its rows.
        output(unsafe { filled(tokens * width, all) }, [tokens, width])
    }

    struct Task<'a> {
        states: &'a [f32],
        angles: [&'a [f32]; 2],
        rows: Range<usize>,
        half: usize,
        direction: f32,
        out: &'a mut [f32],
    }

    impl WithSimd for Task<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { states, angles, rows, half, direction, out } = self;
            let heads = states.len() / rows.len() / (2 * half);
            let pairs = states.chunks(2 * half).zip(out.chunks_mut(2 * half));
            for (number, (states, out)) in pairs.enumerate() {
                let first = (rows.start + number / heads) * half;
                let [cos, sin] = angles.map(|angles| &angles[first..first + half]);
                let ((x, y), (turned_x, turned_y)) =
                    (states.split_at(half), out.split_at_mut(half));
                let mut place = 0;
                while place < half {
                    let range = place..half.min(place + S::F32_LANES);
                    let load = |from: &[f32]| Lanes::load(simd, &from[range.clone()]);
                    let (x, y, cos) = (load(x), load(y), load(cos));
                    let sin = load(sin) * Lanes::splat(simd, direction);
                    (x * cos - y * sin).store(&mut turned_x[range.clone()]);
                    (y * cos + x * sin).store(&mut turned_y[range.clone()]);
                    place = range.end;
                }
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn turning_and_its_gradient_are_those_of_burns_operations() {
        let device = Device::flex();
        let random = |shape: [usize; 2]| {
            Tensor::<2>::random(shape, Distribution::Uniform(-3.0, 3.0), &device)
        };
        for [tokens, heads, half] in [[1, 9, 32], [150, 3, 5], [7, 1, 16]] {
            let angles = random([tokens, half]).reshape([tokens, 1, half]);
            let [states, cotangent] = [1, 2].map(|_| random([tokens, heads * 2 * half]));
            let run = |turned: fn(Tensor<2>, Tensor<3>, Tensor<3>) -> Tensor<2>| {
                let device = device.clone().autodiff();
                let states = Tensor::from_data(states.to_data(), &device).require_grad();
                let [cos, sin] = [angles.clone().cos(), angles.clone().sin()]
                    .map(|angles| Tensor::from_data((angles * 1.2).into_data(), &device));
                let turned = turned(states.clone(), cos, sin);
                let loss = turned.clone() * Tensor::from_data(cotangent.to_data(), &device);
                let gradient = states.grad(&loss.sum().backward()).expect("it has a gradient");
                [turned.into_data(), gradient.into_data()]
            };
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-5);
            for (found, expected) in run(turned).into_iter().zip(run(by_burn)) {
                found.assert_approx_eq(&expected, tolerance);
            }
        }
    }
}
