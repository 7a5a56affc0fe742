use burn::tensor::{DType, Device, Tensor};
use peft_kernels::{Activation, Dropout};

use crate::both::both;

#[test]
fn activations_are_those_of_burn_in_f64() {
    use Activation::*;
    for activation in [Gelu, GeluTanh, QuickGelu, Relu, Silu, Tanh, Sigmoid, Linear, Mish, Relu6] {
        both(&format!("{activation:?}"), &[[13, 37]], 3e-6, |x| {
            activation.forward(x[0].clone() * 3.0)
        });
        both(&format!("gated {activation:?}"), &[[13, 37], [13, 37]], 3e-6, |x| {
            activation.gated(x[0].clone() * 3.0, x[1].clone())
        });
    }
}

#[test]
fn dropout_is_the_same_by_both_paths() {
    for [rows, columns] in [[1, 1], [9, 33], [70, 200]] {
        both("dropout", &[[rows, columns]], 1e-6, |x| Dropout::new(0.4, 5).forward(x[0].clone()));
    }
}

#[test]
fn as_many_numbers_are_dropped_as_asked_for_and_draws_differ() {
    let device = Device::flex();
    let factors = |p, draw| -> Vec<f32> {
        let factors: Tensor<2> = Dropout::new(p, draw).factors([301, 333], &device);
        assert_eq!(factors.dtype(), DType::F32);
        factors.into_data().try_into_vec().unwrap()
    };
    for p in [0.1, 0.5, 0.9] {
        let values = factors(p, 7);
        let dropped = values.iter().filter(|v| **v == 0.0).count() as f64;
        let share = dropped / values.len() as f64;
        assert!((share - p).abs() < 6e-3, "{share} of {p}");
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_ne!(values, factors(p, 8));
        assert_eq!(values, factors(p, 7));
        // No row is that of another, and no column.
        let row = |n: usize| &values[n * 333..(n + 1) * 333];
        assert_ne!(row(0), row(1));
        let column = |n: usize| values.iter().skip(n).step_by(333).collect::<Vec<_>>();
        assert_ne!(column(0), column(64));
        assert_ne!(column(0), column(1));
    }
}
