//! Activations by the names of Hugging Face configurations.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

#[cfg(feature = "flex")]
use crate::simd::{Lanes, gelu, gelu_tanh, sigmoid};

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
        #[cfg(feature = "flex")]
        if self.is_fast() && crate::fused::is_fast(&x) {
            return crate::elementwise::activated(self, x);
        }
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

impl Activation {
    /// `f(gate) ⊙ x`, the inner layer of a feed-forward network with a gate.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn gated<const D: usize>(self, gate: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        assert_eq!(gate.dims(), x.dims(), "a gate for each number");
        #[cfg(feature = "flex")]
        if self.is_fast() && crate::fused::is_fast(&gate) && crate::fused::is_fast(&x) {
            return crate::elementwise::gated(self, gate, x);
        }
        self.forward(gate) * x
    }
}

#[cfg(feature = "flex")]
impl Activation {
    /// Whether [`with_slope`](Self::with_slope) has it.
    pub(crate) fn is_fast(self) -> bool {
        !matches!(self, Self::Gelu10 | Self::Relu2 | Self::Relu6 | Self::LeakyRelu | Self::Mish)
    }

    /// The function and its derivative.
    #[inline(always)]
    pub(crate) fn with_slope<S: pulp::Simd>(self, x: Lanes<S>) -> [Lanes<S>; 2] {
        let (zero, one) = (x.all(0.0), x.all(1.0));
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::QuickGelu => {
                let open = sigmoid(x * x.all(1.702));
                let slope = (x * x.all(1.702) * open).mul_add(one - open, open);
                [x * open, slope]
            }
            Self::Silu => {
                let open = sigmoid(x);
                [x * open, (x * open).mul_add(one - open, open)]
            }
            Self::Relu => [x.at_least(zero), one.where_positive(x)],
            Self::Tanh => {
                let value = sigmoid(x + x).mul_add(x.all(2.0), x.all(-1.0));
                [value, one - value * value]
            }
            Self::Sigmoid => {
                let open = sigmoid(x);
                [open, open * (one - open)]
            }
            Self::Linear => [x, one],
            _ => unreachable!("{self:?} is computed otherwise"),
        }
    }
}
