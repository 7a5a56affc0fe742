//! Activations by the names of Hugging Face configurations.

use burn::tensor::{Tensor, activation};
use serde::Deserialize;

/// An activation function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// `x Φ(x)`.
    #[default]
    #[serde(rename = "gelu")]
    Gelu,
    /// `x Φ(x)` with a tanh in place of the error function.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    /// `max(x, 0)`.
    #[serde(rename = "relu")]
    Relu,
    /// `x σ(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `tanh(x)`.
    #[serde(rename = "tanh")]
    Tanh,
}

impl Activation {
    /// Applies the function to each value.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Tanh => activation::tanh(x),
        }
    }
}
