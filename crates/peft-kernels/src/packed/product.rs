//! The product with a packed matrix, as an operation of the backends that have it.
//!
//! With `P` the matrix that lies packed row by row, a layer's weight is `P` or its transpose, and
//! the gradient of the one product is the other: `y = x Pᵀ` has `dx = dy P`.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, Flex, backend_extension};
use burn::tensor::{Device, Tensor};

use super::{PackedMatrix, layer};
use crate::PackedWeight;

pub(crate) fn is_supported(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// `x W` for `[tokens, d_in]`.
pub(crate) fn product(input: Tensor<2>, weight: &PackedMatrix) -> Tensor<2> {
    let ([_, d_in], [rows, _]) = (input.dims(), weight.dims());
    assert_eq!(d_in, rows, "an input as wide as the weight is high");
    let output = <Dispatch as PackedProduct>::packed_product(input.into_dispatch(), weight.clone());
    Tensor::from_dispatch(output)
}

/// Backends with a product by a packed matrix.
#[backend_extension(Flex, Autodiff)]
pub trait PackedProduct: Backend {
    /// `x W`, `[n, d_in]` to `[n, d_out]`.
    fn packed_product(input: FloatTensor<Self>, weight: PackedMatrix) -> FloatTensor<Self>;
}

impl PackedProduct for Flex {
    fn packed_product(input: FloatTensor<Self>, weight: PackedMatrix) -> FloatTensor<Self> {
        layer::product(&input, &weight)
    }
}

impl<B: PackedProduct, C: CheckpointStrategy> PackedProduct for Autodiff<B, C> {
    fn packed_product(input: FloatTensor<Self>, weight: PackedMatrix) -> FloatTensor<Self> {
        match Product.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let output = B::packed_product(input.into_primitive(), weight.clone());
                prepared.finish(weight, output)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::packed_product(input.into_primitive(), weight))
            }
        }
    }
}

/// On the tape: the packed matrix alone.
#[derive(Debug)]
struct Product;

impl<B: PackedProduct> Backward<B, 1> for Product {
    type State = PackedMatrix;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let gradient = B::packed_product(gradient, ops.state.flipped());
            gradients.register::<B>(node.id, gradient);
        }
    }
}
