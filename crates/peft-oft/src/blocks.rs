//! Square blocks: skew-symmetric ones, and the rotations that are made of them.

use burn::tensor::{Int, Tensor, TensorData};
use peft_core::Pass;

/// Skew-symmetric matrices `[n, size, size]` from what is above their diagonals, row by row:
/// `[n, size (size - 1) / 2]`.
pub(crate) fn skew(above: Tensor<2>, size: usize) -> Tensor<3> {
    let device = above.device().without_autodiff();
    let [count, _] = above.dims();
    // Where an entry is found, and its sign.
    let place = |row: usize, column: usize| row * (2 * size - row - 1) / 2 + column - row - 1;
    let entry = |at: usize| match (at / size, at % size) {
        (row, column) if row < column => (place(row, column) as i64, 1.0f32),
        (row, column) if row > column => (place(column, row) as i64, -1.0),
        _ => (0, 0.0),
    };
    let (places, signs): (Vec<i64>, Vec<f32>) = (0..size * size).map(entry).unzip();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [size * size]), &device);
    let signs = Tensor::<3>::from_data(TensorData::new(signs, [1, size, size]), &device);
    above.select(1, places).reshape([count, size, size]) * signs
}

/// The Cayley transform of skew-symmetric matrices: `(I - S) (I + S)⁻¹ = 2 (I + S)⁻¹ - I`, which is
/// orthogonal.
pub(crate) fn cayley(skew: Tensor<3>) -> Tensor<3> {
    let identity = identity(&skew);
    invert(identity.clone() + skew) * 2.0 - identity
}

/// What the Cayley transform of `-S` begins with as a series:
/// `I + 2 S + 2 S² + ... + 2 Sⁿ⁻² + Sⁿ⁻¹` for `n` terms; with three, the cube is there too, as in
/// HF PEFT.
pub(crate) fn cayley_neumann(skew: Tensor<3>, terms: usize) -> Tensor<3> {
    let first = identity(&skew) + skew.clone() * 2.0;
    if terms < 3 {
        return first;
    }
    let mut power = skew.clone().matmul(skew.clone());
    let mut sum = first + power.clone() * 2.0;
    for _ in 3..terms - 1 {
        power = power.matmul(skew.clone());
        sum = sum + power.clone() * 2.0;
    }
    sum + power.matmul(skew)
}

/// The inverses of matrices whose leading parts have one each: those of `I + S`, and triangular ones.
///
/// They are found without a tape, and a step of Newton's iteration, `2 X - X M X`, takes the rounding off.
/// Another one leaves the value, and has the derivative of an inverse, `-X dM X`.
pub(crate) fn invert(matrices: Tensor<3>) -> Tensor<3> {
    let step = |inverse: Tensor<3>, matrices: Tensor<3>| {
        inverse.clone() * 2.0 - inverse.clone().matmul(matrices).matmul(inverse)
    };
    let values = matrices.clone().detach();
    step(step(by_halves(values.clone()), values), matrices)
}

/// By the inverse of the first quarter, and of what is left of the last one.
fn by_halves(matrices: Tensor<3>) -> Tensor<3> {
    let [count, size, _] = matrices.dims();
    if size == 1 {
        return matrices.recip();
    }
    let halves = [0..size / 2, size / 2..size];
    let part = |row: usize, column: usize| {
        matrices.clone().slice([0..count, halves[row].clone(), halves[column].clone()])
    };
    let first = by_halves(part(0, 0));
    let (right, below) = (first.clone().matmul(part(0, 1)), part(1, 0).matmul(first.clone()));
    let last = by_halves(part(1, 1) - part(1, 0).matmul(right.clone()));
    let right = right.matmul(last.clone()).neg();
    let first = first - right.clone().matmul(below.clone());
    let below = last.clone().matmul(below).neg();
    let rows = [Tensor::cat(vec![first, right], 2), Tensor::cat(vec![below, last], 2)];
    Tensor::cat(rows.into(), 1)
}

/// In training, puts the identity in the place of a block with probability `p`. A block that is the
/// only one stays.
pub(crate) fn dropped(blocks: Tensor<3>, p: f64, pass: &Pass<'_>) -> Tensor<3> {
    let [count, ..] = blocks.dims();
    if count == 1 || p == 0.0 || !pass.mode.is_training() {
        return blocks;
    }
    let ones = Tensor::<3>::ones([count, 1, 1], &blocks.device().without_autodiff());
    let kept = pass.dropout(ones, p).sign();
    let identity = identity(&blocks);
    identity.clone() + (blocks - identity) * kept
}

/// `[1, size, size]`.
pub(crate) fn identity(blocks: &Tensor<3>) -> Tensor<3> {
    let device = blocks.device().without_autodiff();
    Tensor::<2>::eye(blocks.dims()[1], &device).unsqueeze()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    fn assert_close(found: Tensor<3>, expected: Tensor<3>, within: f32) {
        let far = (found - expected).abs().max().into_scalar::<f32>();
        assert!(far < within, "{far}");
    }

    #[test]
    fn entries_above_the_diagonal_lie_row_by_row() {
        let above = Tensor::<2>::from_data([[1.0f32, 2.0, 3.0]], &Device::default());
        let expected = Tensor::<3>::from_data(
            [[[0.0f32, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]]],
            &Device::default(),
        );
        assert_close(skew(above, 3), expected, 1e-7);
    }

    #[test]
    fn a_cayley_transform_is_orthogonal_however_far_it_turns() {
        let device = Device::default();
        device.seed(7);
        for (size, spread) in [(1, 1.0), (2, 0.1), (5, 1.0), (8, 10.0), (13, 30.0)] {
            let above = [3, size * (size - 1) / 2];
            let skew = match size {
                1 => Tensor::zeros([3, 1, 1], &device),
                _ => skew(Tensor::random(above, Distribution::Normal(0.0, spread), &device), size),
            };
            let turned = cayley(skew.clone());
            let identity = identity(&turned);
            let product = turned.clone().matmul(turned.clone().swap_dims(1, 2));
            assert_close(product, identity.clone().expand([3, size, size]), 1e-4);
            // (I + S) R = I - S.
            let product = (identity.clone() + skew.clone()).matmul(turned);
            assert_close(product, identity - skew, 1e-3 * (1.0 + spread as f32));
        }
    }

    #[test]
    fn a_series_is_near_the_transform_of_the_other_sign() {
        let device = Device::default();
        let above = Tensor::random([2, 28], Distribution::Normal(0.0, 0.01), &device);
        let skew = skew(above, 8);
        let exact = cayley(skew.clone().neg());
        assert_close(cayley_neumann(skew.clone(), 5), exact.clone(), 1e-5);
        assert_close(cayley_neumann(skew.clone(), 9), exact, 1e-6);
        assert_close(cayley_neumann(skew.clone(), 3), cayley_neumann(skew.clone(), 4), 1e-9);
        assert_close(cayley_neumann(skew.clone(), 2), identity(&skew) + skew * 2.0, 1e-9);
    }

    #[test]
    fn an_inverse_has_the_gradient_of_one() {
        let device = Device::default().autodiff();
        let matrix = [[[2.0f32, 0.5, 0.0], [-0.5, 1.0, 0.25], [0.0, -0.25, 1.5]]];
        let matrix = Tensor::<3>::from_data(matrix, &device).require_grad();
        let factors = Tensor::<3>::from_data([[[1.0f32, 2.0, -1.0]; 3]], &device);
        let inverse = invert(matrix.clone());
        let gradient = (inverse.clone() * factors.clone()).sum().backward();
        let found = matrix.grad(&gradient).expect("a gradient");
        // -X^T G X^T.
        let turned = inverse.detach().swap_dims(1, 2);
        let expected = turned.clone().matmul(factors).matmul(turned).neg();
        assert_close(found, expected.inner(), 1e-5);
    }
}
