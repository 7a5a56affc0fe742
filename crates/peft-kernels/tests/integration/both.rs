//! An operation twice: on f32, where this crate computes it, and on f64, where Burn's operations do.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Numbers that are neither small nor alike, from -2 to 2.
pub fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / f64::from(1u32 << 29) - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// The outputs and all gradients of a function of some matrices, in both precisions.
///
/// The gradient that comes from above is not the same for any two numbers.
pub fn both(
    what: &str,
    shapes: &[[usize; 2]],
    tolerance: f64,
    function: impl Fn(&[Tensor<2>]) -> Tensor<2>,
) {
    let run = |dtype: DType| -> Vec<Vec<f64>> {
        let device = Device::flex().autodiff();
        let inputs: Vec<Tensor<2>> = shapes
            .iter()
            .enumerate()
            .map(|(number, shape)| {
                let data = TensorData::new(values(shape[0] * shape[1], number as u64), *shape);
                Tensor::<2>::from_data(data, (&device, dtype)).require_grad()
            })
            .collect();
        let output = function(&inputs);
        let above = TensorData::new(values(output.shape().num_elements(), 99), output.shape());
        let above = Tensor::<2>::from_data(above, (&device.clone().without_autodiff(), dtype));
        let gradients = (output.clone() * above).sum().backward();
        let numbers = |tensor: Tensor<2>| -> Vec<f64> {
            tensor.into_data().convert::<f64>().try_into_vec().expect("f64")
        };
        let mut found = vec![numbers(output.inner())];
        for (number, input) in inputs.iter().enumerate() {
            let gradient = input.grad(&gradients);
            found.push(numbers(gradient.unwrap_or_else(|| panic!("{what}: input {number}"))));
        }
        found
    };
    let (found, exact) = (run(DType::F32), run(DType::F64));
    for (number, (found, exact)) in found.iter().zip(&exact).enumerate() {
        let largest = exact.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        assert!(largest > 0.0, "{what}: nothing reaches {number}");
        for (place, (a, b)) in found.iter().zip(exact).enumerate() {
            let far = (a - b).abs() / largest.max(1.0);
            assert!(far < tolerance, "{what}: {a} for {b} at {place} of {number}");
        }
    }
}
