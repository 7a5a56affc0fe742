//! The product with a packed matrix, on the tape.
//!
//! With `P` the matrix that lies packed row by row, a layer's weight is `P` or its transpose, and
//! the gradient of the one product is the other: `y = x Pᵀ` has `dx = dy P`.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};

use super::{PackedMatrix, layer};
use crate::PackedWeight;
use crate::fused::{Array, Operation, Saved, apply};

pub(crate) fn is_supported(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// `x W` for `[tokens, d_in]`.
pub(crate) fn product(input: Tensor<2>, weight: &PackedMatrix) -> Tensor<2> {
    let ([_, d_in], [rows, _]) = (input.dims(), weight.dims());
    assert_eq!(d_in, rows, "an input as wide as the weight is high");
    apply(Product(weight.clone()), [input.into_dispatch()])
}

/// On the tape: the packed matrix alone.
#[derive(Debug)]
struct Product(PackedMatrix);

impl Operation for Product {
    fn names(&self) -> [&'static str; 2] {
        ["linear, packed", "linear, packed, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        (layer::product(&inputs[0], &self.0), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, _saved: &Saved, gradient: Array, _wanted: &[bool]) -> Vec<Option<Array>> {
        vec![Some(layer::product(&gradient, &self.0.flipped()))]
    }
}
