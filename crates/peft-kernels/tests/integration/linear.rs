use burn::tensor::Device;
use peft_kernels::{
    Activation, Dropout, Element, LinearParts, LowRankPart, PackedWeight, PrepackedMatrix,
};

use crate::both::{both, values};

fn weight(shape: [usize; 2]) -> PrepackedMatrix {
    weight_of(shape, Element::F32)
}

fn weight_of([d_in, d_out]: [usize; 2], element: Element) -> PrepackedMatrix {
    let values: Vec<f32> = values(d_in * d_out, 7).into_iter().map(|v| v as f32).collect();
    PrepackedMatrix::new(&values, [d_in, d_out], element, &Device::flex())
}

#[test]
fn a_layer_and_its_gradients_are_those_of_burn_in_f64() {
    for [tokens, d_in, d_out, rank] in [[1, 5, 3, 2], [37, 50, 70, 5], [200, 48, 96, 8]] {
        let weight = weight([d_in, d_out]);
        for activation in [None, Some(Activation::Gelu), Some(Activation::Mish)] {
            for dropout in [None, Some(Dropout::new(0.3, 11))] {
                let shapes = [[tokens, d_in], [1, d_out], [d_in, rank], [rank, d_out]];
                let what = format!("{tokens} x {d_in} x {d_out}, {activation:?}, {dropout:?}");
                both(&what, &shapes, 2e-5, |inputs| {
                    let [x, bias, a, b] = inputs else { unreachable!() };
                    let (a, b) = (a.clone(), b.clone());
                    let low_rank = Some(LowRankPart { a, b, scale: 0.7, dropout });
                    let bias = Some(bias.clone().squeeze_dim(0));
                    // Small sums, so that activations bend.
                    let x = x.clone() * 0.1;
                    weight.linear(x, LinearParts { bias, low_rank, activation, is_unread: false })
                });
            }
        }
    }
}

#[test]
fn in_bf16_what_is_multiplied_is_rounded_and_nothing_else() {
    for [tokens, d_in, d_out, rank] in [[1, 5, 3, 2], [37, 51, 70, 5], [200, 48, 96, 8]] {
        let weight = weight_of([d_in, d_out], Element::Bf16);
        let shapes = [[tokens, d_in], [1, d_out], [d_in, rank], [rank, d_out]];
        // The other side has the rounded weights, and the input as it is: 8 binary digits of each
        // number, of which the errors do not all have one sign.
        both(&format!("{tokens} x {d_in} x {d_out}"), &shapes, 6e-3, |inputs| {
            let [x, bias, a, b] = inputs else { unreachable!() };
            let (a, b) = (a.clone(), b.clone());
            let low_rank = Some(LowRankPart { a, b, scale: 0.7, dropout: None });
            let bias = Some(bias.clone().squeeze_dim(0));
            let activation = Some(Activation::Gelu);
            let x = x.clone() * 0.1;
            weight.linear(x, LinearParts { bias, low_rank, activation, is_unread: false })
        });
        assert_eq!(weight.num_bytes(), d_in * d_out * 2);
    }
}

#[test]
fn without_parts_and_the_other_way_round() {
    for [tokens, d_in, d_out] in [[1, 64, 200], [9, 7, 49], [130, 33, 48]] {
        let weight = weight([d_in, d_out]);
        both("x W", &[[tokens, d_in]], 2e-5, |x| weight.product(x[0].clone()));
        let flipped = weight.transpose();
        assert_eq!(flipped.dims(), [d_out, d_in]);
        both("x Wᵀ", &[[tokens, d_out]], 2e-5, |x| flipped.product(x[0].clone()));
    }
}

#[test]
fn its_numbers_and_rows_are_as_they_were() {
    let numbers: Vec<f32> = values(6 * 50, 3).into_iter().map(|v| v as f32).collect();
    let device = Device::flex();
    let dense = burn::tensor::Tensor::<2>::from_data(
        burn::tensor::TensorData::new(numbers.clone(), [6, 50]),
        &device,
    );
    let read = |tensor: burn::tensor::Tensor<2>| tensor.into_data().try_into_vec::<f32>().unwrap();
    let straight = PrepackedMatrix::new(&numbers, [6, 50], Element::F32, &device);
    let flipped = PrepackedMatrix::transposed(&numbers, [6, 50], Element::F32, &device);
    assert_eq!(read(straight.dense()), numbers);
    assert_eq!(read(flipped.dense()), read(dense.clone().transpose()));
    let indices = || burn::tensor::Tensor::<1, burn::tensor::Int>::from_data([4, 0, 5], &device);
    let rows = read(dense.clone().select(0, indices()));
    assert_eq!(read(straight.rows(indices())), rows);
    assert_eq!(read(flipped.transpose().rows(indices())), rows);
    assert_eq!(straight.num_bytes(), 6 * 50 * 4);
}
