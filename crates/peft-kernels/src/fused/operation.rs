//! One extension of Burn's backends, through which all operations go.

use std::fmt;
use std::sync::{Arc, OnceLock};

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

    /// Whether the output is soon computed [again](Self::again): an operation that needs it in its
    /// backward pass keeps this one for it then.
    fn is_cheap(&self) -> bool {
        false
    }

    /// The output, to the last bit, from what is on the tape.
    fn again(&self, _saved: &Saved) -> Array {
        unreachable!("asked of an operation that is cheap")
    }
}

/// What an operation has on the tape.
#[derive(Debug)]
pub(crate) struct Saved {
    inputs: Vec<Option<Input>>,
    /// What `forward` returned beside the output.
    pub(crate) values: Vec<Array>,
}

impl Saved {
    /// An input that is needed.
    pub(crate) fn input(&self, number: usize) -> &Array {
        match &self.inputs[number] {
            Some(Input::Array(array)) => array,
            Some(Input::OutputOf(recorded)) => recorded.output(),
            None => unreachable!("the operation said that it needs this input"),
        }
    }
}

/// An input that is needed.
#[derive(Debug)]
enum Input {
    Array(Array),
    /// What a cheap operation gives.
    OutputOf(Arc<Recorded>),
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
    let ids = nodes.each_ref().map(|node| node.id().value);
    match Step::<N>.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, values) = span(operation.names()[0], || operation.forward(&arrays));
            let inputs = arrays.into_iter().zip(ids).enumerate();
            let inputs = inputs.map(|(number, (array, id))| {
                let input = || cheap::output(id).map_or(Input::Array(array), Input::OutputOf);
                operation.needs(number).then(input)
            });
            let saved = Saved { inputs: inputs.collect(), values };
            let recorded = Arc::new(Recorded { operation, saved, again: OnceLock::new() });
            let output = prepared.finish(recorded.clone(), output);
            if recorded.operation.is_cheap() {
                cheap::insert(output.id().value, &recorded);
            }
            output
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(span(operation.names()[0], || operation.forward(&arrays)).0)
        }
    }
}

/// An operation on the tape.
#[derive(Debug)]
struct Recorded {
    operation: Arc<dyn Operation>,
    saved: Saved,
    /// The output, once another operation's backward pass has asked for it; it goes with this, as
    /// soon as the backward pass has been through all of those and this one.
    again: OnceLock<Array>,
}

impl Recorded {
    fn output(&self) -> &Array {
        let again = || self.operation.again(&self.saved);
        self.again.get_or_init(|| span(self.operation.names()[0], again))
    }
}

/// The cheap operations on the tapes of this thread, by the node that holds their output.
mod cheap {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::sync::{Arc, Weak};

    use super::Recorded;

    thread_local! {
        static KNOWN: RefCell<HashMap<u64, Weak<Recorded>>> = RefCell::default();
    }

    /// The operation whose output this node holds, if it is a cheap one.
    pub(super) fn output(node: u64) -> Option<Arc<Recorded>> {
        KNOWN.with_borrow(|known| known.get(&node).and_then(Weak::upgrade))
    }

    pub(super) fn insert(node: u64, recorded: &Arc<Recorded>) {
        KNOWN.with_borrow_mut(|known| {
            known.retain(|_, recorded| recorded.strong_count() > 0);
            known.insert(node, Arc::downgrade(recorded));
        });
    }
}

/// An operation of `N` inputs on the tape.
#[derive(Debug)]
struct Step<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = Arc<Recorded>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let Recorded { operation, saved, .. } = &*ops.state;
        let [_, name] = operation.names();
        let found = span(name, || operation.backward(saved, gradient, &wanted));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// `2 x`, which is cheap, and counts how often it is computed.
    #[derive(Debug)]
    struct Doubled(Arc<[AtomicUsize; 2]>);

    /// `x²`, which is not.
    #[derive(Debug)]
    struct Square;

    fn map(x: &Array, of: impl Fn(f32) -> f32) -> Array {
        let (x, shape) = matrix(x);
        output(numbers(&x).iter().map(|x| of(*x)).collect(), shape)
    }

    impl Operation for Doubled {
        fn names(&self) -> [&'static str; 2] {
            ["doubled", "doubled, backward"]
        }

        fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
            self.0[0].fetch_add(1, Ordering::Relaxed);
            (map(&inputs[0], |x| 2.0 * x), Vec::new())
        }

        fn needs(&self, _input: usize) -> bool {
            true
        }

        fn backward(&self, _: &Saved, gradient: Array, _: &[bool]) -> Vec<Option<Array>> {
            vec![Some(map(&gradient, |g| 2.0 * g))]
        }

        fn is_cheap(&self) -> bool {
            true
        }

        fn again(&self, saved: &Saved) -> Array {
            self.0[1].fetch_add(1, Ordering::Relaxed);
            map(saved.input(0), |x| 2.0 * x)
        }
    }

    impl Operation for Square {
        fn names(&self) -> [&'static str; 2] {
            ["square", "square, backward"]
        }

        fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
            (map(&inputs[0], |x| x * x), Vec::new())
        }

        fn needs(&self, _input: usize) -> bool {
            true
        }

        fn backward(&self, saved: &Saved, gradient: Array, _: &[bool]) -> Vec<Option<Array>> {
            let (x, shape) = matrix(saved.input(0));
            let gradient = gradient.to_contiguous();
            let of = numbers(&x).iter().zip(numbers(&gradient)).map(|(x, g)| 2.0 * x * g);
            vec![Some(output(of.collect(), shape))]
        }
    }

    #[test]
    fn what_is_cheap_is_computed_again_once_for_all_that_need_it() {
        let device = Device::flex().autodiff();
        let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let x = Tensor::<2>::from_data([[1.0f32, -3.0]], &device).require_grad();
        let doubled =
            || -> Tensor<2> { apply(Doubled(counts.clone()), [x.clone().into_dispatch()]) };
        let square = |x: Tensor<2>| -> Tensor<2> { apply(Square, [x.into_dispatch()]) };
        let one = doubled();
        let both = square(one.clone()) + square(one);
        let count = |number: usize| counts[number].load(Ordering::Relaxed);
        assert_eq!([count(0), count(1)], [1, 0]);
        let gradients = both.sum().backward();
        assert_eq!([count(0), count(1)], [1, 1]);
        let gradient = x.grad(&gradients).expect("a gradient").into_data();
        assert_eq!(gradient.try_into_vec::<f32>().expect("f32"), [16.0, -48.0]);

        // What is on no tape is not.
        let device = Device::flex();
        let x = Tensor::<2>::from_data([[1.0f32]], &device);
        let one: Tensor<2> = apply(Doubled(counts.clone()), [x.into_dispatch()]);
        square(one).into_data();
        assert_eq!([count(0), count(1)], [2, 1]);
    }
}
