//! Activations by the names of Hugging Face configurations.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// An activation function, of a model or of a method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x Φ(x)`.
    #[default]
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// `x Φ(x)` with a tanh in place of the error function.
    #[serde(
        rename = "gelu_new",
        alias = "gelu_pytorch_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate",
        alias = "gelu_python_tanh"
    )]
    GeluTanh,
    /// `x σ(1.702 x)`.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// `x Φ(x)`, at least -10 and at most 10.
    #[serde(rename = "gelu_10")]
    Gelu10,
    /// `max(x, 0)`.
    #[serde(rename = "relu")]
    Relu,
    /// `max(x, 0)²`.
    #[serde(rename = "relu2")]
    Relu2,
    /// `max(x, 0)`, at most 6.
    #[serde(rename = "relu6")]
    Relu6,
    /// `x` where it is positive, else `0.01 x`.
    #[serde(rename = "leakyrelu", alias = "leaky_relu")]
    LeakyRelu,
    /// `x σ(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `x tanh(ln(1 + eˣ))`.
    #[serde(rename = "mish")]
    Mish,
    /// `tanh(x)`.
    #[serde(rename = "tanh")]
    Tanh,
    /// `σ(x)`.
    #[serde(rename = "sigmoid")]
    Sigmoid,
    /// `x` itself.
    #[serde(rename = "linear")]
    Linear,
}

impl Activation {
    /// Applies the function to each value.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Gelu10 => activation::gelu(x).clamp(-10.0, 10.0),
            Self::Relu => activation::relu(x),
            Self::Relu2 => activation::relu(x).square(),
            Self::Relu6 => activation::relu(x).clamp_max(6.0),
            Self::LeakyRelu => activation::leaky_relu(x, 0.01),
            Self::Silu => activation::silu(x),
            Self::Mish => activation::mish(x),
            Self::Tanh => activation::tanh(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Linear => x,
        }
    }
}
