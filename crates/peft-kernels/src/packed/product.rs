//! The product with a packed matrix, as an operation of the backends that have it.
//!
//! With `P` the matrix that lies packed row by row, a layer's weight is `P` or its transpose, and
//! the gradient of the one product is the other: `y = x Pᵀ` has `dx = dy P`.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension,
};
use burn::tensor::{Device, Slice, Tensor};
use rayon::prelude::*;

use super::PackedMatrix;
use crate::PackedWeight;

/// The most numbers that one task unpacks at a time: they should stay in a core's cache until they
/// are multiplied, and be enough for the product to be worth its own preparations.
const TILE: usize = 3 << 17;

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
        if weight.is_transposed() { by_rows(input, &weight) } else { over_rows(input, &weight) }
    }
}

/// `x Pᵀ`: each tile of rows makes columns of the output.
fn by_rows(input: FloatTensor<Flex>, weight: &PackedMatrix) -> FloatTensor<Flex> {
    let parts: Vec<_> = tiles(weight)
        .into_par_iter()
        .map(|rows| Flex::float_matmul(input.clone(), Flex::float_transpose(tile(weight, rows))))
        .collect();
    concatenated(parts)
}

/// `x P`: each tile of rows takes columns of the input, and adds to the whole output.
fn over_rows(input: FloatTensor<Flex>, weight: &PackedMatrix) -> FloatTensor<Flex> {
    let count = input.shape()[0];
    let part = |rows: &Range<usize>| {
        let columns = [Slice::from(0..count), Slice::from(rows.clone())];
        let input = Flex::float_slice(input.clone(), &columns);
        Flex::float_matmul(input, tile(weight, rows.clone()))
    };
    let tiles = tiles(weight);
    // A sum for each thread, of the same tiles in the same order each time.
    let groups = tiles.chunks(tiles.len().div_ceil(rayon::current_num_threads()));
    let groups: Vec<_> = groups.collect();
    let sums: Vec<_> = groups
        .into_par_iter()
        .map(|group| group.iter().map(part).reduce(Flex::float_add).expect("a group has tiles"))
        .collect();
    sums.into_iter().reduce(Flex::float_add).expect("a matrix has rows")
}

/// The packed matrix in ranges of rows: at least one for each thread, none larger than [`TILE`].
fn tiles(weight: &PackedMatrix) -> Vec<Range<usize>> {
    let [rows, columns] = weight.packed_shape();
    let most = (TILE / columns).max(1);
    let size = rows.div_ceil(rayon::current_num_threads()).min(most).max(1);
    (0..rows).step_by(size).map(|start| start..(start + size).min(rows)).collect()
}

fn tile(weight: &PackedMatrix, rows: Range<usize>) -> FloatTensor<Flex> {
    Flex::float_from_data(weight.unpack(rows), &Default::default())
}

fn concatenated(mut parts: Vec<FloatTensor<Flex>>) -> FloatTensor<Flex> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    Flex::float_cat(parts, 1)
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
