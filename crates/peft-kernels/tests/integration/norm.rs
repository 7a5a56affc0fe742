use burn::tensor::Tensor;
use peft_kernels::{Dropout, Norm, sum};

use crate::both::both;

fn vector(matrix: &Tensor<2>) -> Tensor<1> {
    matrix.clone().squeeze_dim(0)
}

#[test]
fn norms_and_their_gradients_are_those_of_burn_in_f64() {
    for [tokens, d] in [[1, 3], [37, 50], [150, 64]] {
        for centred in [true, false] {
            let shapes = [[tokens, d], [1, d], [1, d]];
            let of = |inputs: &[Tensor<2>], bias: bool| Norm {
                gain: vector(&inputs[1]),
                bias: bias.then(|| vector(&inputs[2])),
                epsilon: 1e-3,
                centred,
            };
            both(&format!("{tokens} x {d}"), &shapes, 2e-5, |inputs| {
                of(inputs, true).forward(inputs[0].clone() * 3.0 + 0.5)
            });
            both(&format!("{tokens} x {d} without a bias"), &shapes[..2], 2e-5, |inputs| {
                of(inputs, false).forward(inputs[0].clone())
            });
            let shapes = [shapes[0], shapes[1], shapes[2], shapes[0]];
            for dropout in [None, Some(Dropout::new(0.3, 3))] {
                both(&format!("sum, {dropout:?}"), &shapes, 2e-5, |inputs| {
                    of(inputs, true).of_sum(inputs[3].clone(), inputs[0].clone(), dropout)
                });
            }
        }
    }
}

#[test]
fn sums_are_those_of_burn_in_f64() {
    for dropout in [None, Some(Dropout::new(0.3, 3))] {
        both("sum", &[[13, 70], [13, 70]], 1e-6, |x| sum(x[0].clone(), x[1].clone(), dropout));
    }
}
