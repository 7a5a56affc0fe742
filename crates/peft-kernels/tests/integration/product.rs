//! A product with a packed matrix is that with its numbers, and so is its gradient.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, Tolerance};
use peft_core::{FrozenWeight, PackedWeight};
use peft_kernels::{PackedMatrix, PackedTensor};

/// Numbers in -1..1 that do not repeat soon.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn matrix(
    rows: usize,
    columns: usize,
    pack: fn(Vec<usize>, &[f32]) -> Option<PackedTensor>,
) -> PackedMatrix {
    let values: Vec<f32> = numbers(rows * columns, 7).iter().map(|v| v * 0.05).collect();
    let packed = pack(vec![rows, columns], &values).expect("whole blocks");
    PackedMatrix::new(packed, &Device::flex())
}

fn input(shape: [usize; 2]) -> Tensor<2> {
    let data = TensorData::new(numbers(shape.iter().product(), 3), shape);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F32))
}

/// `x W` and `d sum(y ⊙ c) / dx` with the packed matrix, and with its numbers.
fn assert_same(weight: &FrozenWeight, rows: usize) {
    let [d_in, d_out] = weight.dims();
    let cotangent = input([rows, d_out]);
    let run = |weight: &FrozenWeight| {
        let x = input([rows, d_in]).require_grad();
        let y = weight.linear(x.clone(), None);
        let gradients = (y.clone() * cotangent.clone()).sum().backward();
        (y.into_data(), x.grad(&gradients).expect("x has a gradient").into_data())
    };
    let (y, dx) = run(weight);
    let (dense_y, dense_dx) = run(&weight.dense().into());
    let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
    y.assert_approx_eq(&dense_y, tolerance);
    dx.assert_approx_eq(&dense_dx, tolerance);
}

#[test]
fn products_and_gradients_are_those_of_the_numbers() {
    // One tile; several; rows that do not fill the last.
    for [rows, columns] in [[40, 64], [1500, 576], [333, 1536]] {
        for pack in [PackedTensor::eight_bit, PackedTensor::four_bit] {
            let matrix = matrix(rows, columns, pack);
            for weight in [matrix.flipped(), matrix] {
                let weight = FrozenWeight::Packed(std::sync::Arc::new(weight));
                assert_same(&weight, 10);
                assert_same(&weight, 1);
            }
        }
    }
}

#[test]
fn the_same_product_twice_is_the_same_to_the_bit() {
    let weight = matrix(1500, 576, PackedTensor::four_bit);
    let run = || weight.product(input([21, 1500])).into_data();
    assert_eq!(run(), run());
}

#[test]
fn rows_are_looked_up() {
    let table = matrix(50, 64, PackedTensor::eight_bit);
    let indices = TensorData::new(vec![3_i64, 49, 0, 3, 17, 1], [6]);
    let indices = Tensor::<1, Int>::from_data(indices, &Device::flex());
    let found = table.rows(indices.clone()).into_data();
    assert_eq!(found, FrozenWeight::from(table.dense()).rows(indices).into_data());
}

#[test]
fn a_bias_is_added() {
    let weight = FrozenWeight::Packed(std::sync::Arc::new(matrix(96, 64, PackedTensor::eight_bit)));
    let bias = Tensor::<1>::from_data(TensorData::new(numbers(64, 5), [64]), &Device::flex());
    let x = input([6, 96]);
    let found = weight.linear(x.clone(), Some(bias.clone())).into_data();
    let dense = FrozenWeight::from(weight.dense());
    found.assert_approx_eq(
        &dense.linear(x, Some(bias)).into_data(),
        Tolerance::<f32>::rel_abs(1e-4, 1e-5),
    );
}

#[test]
fn rows_that_are_no_whole_blocks_are_not_packed() {
    let values = numbers(3 * 96, 1);
    assert!(PackedTensor::eight_bit(vec![3, 96], &values).is_some());
    assert!(PackedTensor::four_bit(vec![3, 96], &values).is_none(), "blocks of 64");
}
