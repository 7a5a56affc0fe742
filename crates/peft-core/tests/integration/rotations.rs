//! Square matrices before and behind a layer.

use burn::tensor::Tensor;
use peft_core::{Edits, Rotate, Rotation, Side};

use crate::edits::{IN, OUT, make, make_bias, rotate};
use crate::support::{device, random};

/// The whole matrix of blocks on the diagonal.
pub(crate) fn block_diagonal(rotate: &Rotate) -> Tensor<2> {
    let Rotation::Blocks(blocks) = &rotate.rotation else { unreachable!("it has blocks") };
    let [count, size, _] = blocks.dims();
    let rows = (0..count).map(|number| {
        let block = blocks.clone().narrow(0, number, 1).squeeze_dim::<2>(0);
        let zeros = |blocks: usize| Tensor::<2>::zeros([size, blocks * size], &device());
        let parts = [zeros(number), block, zeros(count - 1 - number)];
        Tensor::cat(parts.into_iter().filter(|part| part.dims()[1] > 0).collect(), 1)
    });
    Tensor::cat(rows.collect(), 0)
}

#[test]
fn a_rotation_is_a_matrix_of_blocks_on_one_side() {
    for orthogonal in [true, false] {
        let input = rotate(Side::Input, orthogonal);
        let r = block_diagonal(&input);
        make(&input.clone().into(), |w| r.clone().matmul(w), None);
        make_bias(&input.into(), |b| b);
        let output = rotate(Side::Output, orthogonal);
        let r = block_diagonal(&output);
        make(&output.clone().into(), |w| w.matmul(r.clone()), None);
        let turned = |b: Tensor<1>| b.unsqueeze::<2>().matmul(r.clone()).squeeze_dim(0);
        make_bias(&output.into(), |b| b.map(turned));
    }
    let zeros = Rotate::blocks(Tensor::zeros([2, IN / 2, IN / 2], &device()), Side::Input);
    make(&zeros.into(), |w| w * 0.0, Some("its rotation has no inverse"));
}

/// A reflection `I - 2 v vᵀ / ‖v‖²` of a side's width, as a low rank and whole.
fn reflection(side: Side) -> (Rotate, Tensor<2>) {
    let width = if side == Side::Input { IN } else { OUT };
    let v = random::<2>([width, 1]);
    let square = v.clone().square().sum();
    let (a, b) = (v.clone() * -2.0 / square.unsqueeze(), v.transpose());
    let whole = Tensor::<2>::eye(width, &device()) + a.clone().matmul(b.clone());
    (Rotate::low_rank(a, b, side), whole)
}

#[test]
fn a_rotation_of_low_rank_is_the_identity_and_a_product() {
    let (input, r) = reflection(Side::Input);
    make(&input.clone().orthogonal().into(), |w| r.clone().matmul(w), None);
    make_bias(&input.clone().into(), |b| b);
    make(&Edits::from(input), |w| r.clone().matmul(w), Some("its rotation has no inverse"));
    let (output, r) = reflection(Side::Output);
    make(&output.clone().orthogonal().into(), |w| w.matmul(r.clone()), None);
    let turned = |b: Tensor<1>| b.unsqueeze::<2>().matmul(r.clone()).squeeze_dim(0);
    make_bias(&output.into(), |b| b.map(turned));
}
