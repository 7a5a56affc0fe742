//! One extension of Burn's backends, through which all operations go.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, ExtensionType, Flex, TensorMetadata,
    backend_extension,
};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::profile::span;

/// A tensor of the CPU backend.
pub(crate) type Array = FloatTensor<Flex>;

/// A function of f32 tensors on the CPU, with its derivative.
pub(crate) trait Operation: fmt::Debug + Send + Sync + 'static {
    /// What a profile calls it, and its backward pass.
    fn names(&self) -> [&'static str; 2];

    /// The output, and what the backward pass needs beside the inputs.
    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>);

    /// Which inputs the backward pass needs.
    fn needs(&self, input: usize) -> bool;

    /// The gradient of each input that is `wanted`.
    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>>;
}

/// What an operation has on the tape.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    inputs: Vec<Option<Array>>,
    /// What `forward` returned beside the output.
    pub(crate) values: Vec<Array>,
}

impl Saved {
    /// An input that is needed.
    pub(crate) fn input(&self, number: usize) -> &Array {
        self.inputs[number].as_ref().expect("the operation said that it needs this input")
    }
}

/// One to six inputs.
#[derive(Debug, ExtensionType)]
#[allow(missing_docs)]
pub enum Inputs<B: Backend> {
    One(FloatTensor<B>),
    Two(FloatTensor<B>, FloatTensor<B>),
    Three(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Four(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Five(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Six(
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
    ),
}

/// An operation, as the extension takes it.
#[derive(Debug, Clone)]
pub struct Shown(Arc<dyn Operation>);

/// Backends with the operations of this crate.
#[backend_extension(Flex, Autodiff)]
pub trait Operations: Backend {
    /// The output of an operation.
    fn fused(#[extension_type] inputs: Inputs<Self>, operation: Shown) -> FloatTensor<Self>;
}

impl Operations for Flex {
    fn fused(inputs: Inputs<Self>, operation: Shown) -> FloatTensor<Self> {
        let inputs = inputs.into_vec();
        span(operation.0.names()[0], || operation.0.forward(&inputs)).0
    }
}

impl<C: CheckpointStrategy> Operations for Autodiff<Flex, C> {
    fn fused(inputs: Inputs<Self>, operation: Shown) -> FloatTensor<Self> {
        match inputs {
            Inputs::One(a) => recorded::<C, 1>([a], operation.0),
            Inputs::Two(a, b) => recorded::<C, 2>([a, b], operation.0),
            Inputs::Three(a, b, c) => recorded::<C, 3>([a, b, c], operation.0),
            Inputs::Four(a, b, c, d) => recorded::<C, 4>([a, b, c, d], operation.0),
            Inputs::Five(a, b, c, d, e) => recorded::<C, 5>([a, b, c, d, e], operation.0),
            Inputs::Six(a, b, c, d, e, f) => recorded::<C, 6>([a, b, c, d, e, f], operation.0),
        }
    }
}

impl<B: Backend> Inputs<B> {
    fn into_vec(self) -> Vec<FloatTensor<B>> {
        match self {
            Self::One(a) => vec![a],
            Self::Two(a, b) => vec![a, b],
            Self::Three(a, b, c) => vec![a, b, c],
            Self::Four(a, b, c, d) => vec![a, b, c, d],
            Self::Five(a, b, c, d, e) => vec![a, b, c, d, e],
            Self::Six(a, b, c, d, e, f) => vec![a, b, c, d, e, f],
        }
    }
}

/// Runs an operation, and puts it on the tape where an input is on it.
fn recorded<C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    operation: Arc<dyn Operation>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let (mut arrays, mut nodes): (Vec<Array>, Vec<NodeGuard>) = (Vec::new(), Vec::new());
    for input in inputs {
        let (array, node) = input.into_parts();
        arrays.push(array);
        nodes.push(node);
    }
    let nodes: [NodeGuard; N] = nodes.try_into().expect("a node for each input");
    match Step::<N>.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, values) = span(operation.names()[0], || operation.forward(&arrays));
            let inputs = arrays.into_iter().enumerate();
            let inputs =
                inputs.map(|(number, array)| operation.needs(number).then_some(array)).collect();
            prepared.finish((Shown(operation), Saved { inputs, values }), output)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(span(operation.names()[0], || operation.forward(&arrays)).0)
        }
    }
}

/// An operation of `N` inputs on the tape.
#[derive(Debug)]
struct Step<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = (Shown, Saved);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let (operation, saved) = ops.state;
        let [_, name] = operation.0.names();
        let found = span(name, || operation.0.backward(&saved, gradient, &wanted));
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Whether the operations of this crate run on a device: the CPU backend.
pub(crate) fn is_fast_device(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether the operations of this crate take a tensor: f32, on such a device.
pub(crate) fn is_fast<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_fast_device(&tensor.device())
}

/// The numbers of a contiguous array.
pub(crate) fn numbers(array: &Array) -> &[f32] {
    array.as_slice().expect("a contiguous tensor of f32")
}

/// A contiguous matrix, and its shape.
pub(crate) fn matrix(array: &Array) -> (Array, [usize; 2]) {
    let shape = array.shape();
    (array.to_contiguous(), [shape[0], shape[1]])
}

/// The output of an operation.
///
/// # Panics
/// If there are none or more than six inputs.
pub(crate) fn apply<const D: usize>(
    operation: impl Operation,
    inputs: impl IntoIterator<Item = burn::backend::DispatchTensor>,
) -> Tensor<D> {
    let mut inputs = inputs.into_iter();
    let mut next = || inputs.next();
    let inputs = match (next(), next(), next(), next(), next(), next()) {
        (Some(a), None, ..) => Inputs::One(a),
        (Some(a), Some(b), None, ..) => Inputs::Two(a, b),
        (Some(a), Some(b), Some(c), None, ..) => Inputs::Three(a, b, c),
        (Some(a), Some(b), Some(c), Some(d), None, ..) => Inputs::Four(a, b, c, d),
        (Some(a), Some(b), Some(c), Some(d), Some(e), None) => Inputs::Five(a, b, c, d, e),
        (Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)) => Inputs::Six(a, b, c, d, e, f),
        _ => panic!("an operation has one to six inputs"),
    };
    Tensor::from_dispatch(<Dispatch as Operations>::fused(inputs, Shown(Arc::new(operation))))
}

/// A tensor of these numbers.
pub(crate) fn output<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Array {
    Array::from_data(TensorData::new(values, shape))
}
