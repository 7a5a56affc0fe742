//! Parameters: how they start, and how they end.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use peft_core::{Base, InitContext, Site};

/// A table `[rows, columns]` with values from `N(0, 1)`, as PyTorch's `Embedding` starts.
pub(crate) fn normal(shape: [usize; 2], context: &InitContext<'_>) -> Param<Tensor<2>> {
    Param::from_tensor(context.random(shape, Distribution::Normal(0.0, 1.0)))
}

/// A linear layer that starts as PyTorch's: weight and bias uniform in `±1/√d_in`.
pub(crate) fn linear(d_in: usize, d_out: usize, context: &InitContext<'_>) -> Linear {
    let bound = 1.0 / (d_in as f64).sqrt();
    let uniform = Distribution::Uniform(-bound, bound);
    Linear {
        weight: Param::from_tensor(context.random([d_in, d_out], uniform)),
        bias: Some(Param::from_tensor(context.random([d_out], uniform))),
    }
}

/// A linear layer that starts at zero, its bias too.
pub(crate) fn zero_linear(d_in: usize, d_out: usize, context: &InitContext<'_>) -> Linear {
    Linear {
        weight: Param::from_tensor(Tensor::zeros([d_in, d_out], context.device)),
        bias: Some(Param::from_tensor(Tensor::zeros([d_out], context.device))),
    }
}

/// Rows of a frozen table, `[indices, d]`, on `device`.
pub(crate) fn rows(base: &Base, site: &Site, indices: &[usize], device: &Device) -> Tensor<2> {
    let indices: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
    let count = indices.len();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), base.device());
    Tensor::from_data(base.weight(site).rows(indices).into_data(), device)
}

/// A parameter that is not trained.
pub(crate) fn constant(value: Tensor<2>) -> Param<Tensor<2>> {
    Param::from_tensor(value).no_grad()
}

/// What an encoder computed, as a parameter in the place of `embedding`, which it read.
pub(crate) fn computed(value: Tensor<2>, embedding: &Param<Tensor<2>>) -> Param<Tensor<2>> {
    let value = Tensor::from_data(value.into_data(), &embedding.lazy_device());
    Param::from_tensor(value).set_require_grad(embedding.is_require_grad())
}
