//! Linear layers: product, bias, activation and a low-rank part in one.

#[cfg(feature = "flex")]
mod backward;
#[cfg(feature = "flex")]
mod forward;

use burn::tensor::{Tensor, module};

use crate::{Activation, Dropout};

/// What a linear layer computes beside its product: `f(x W + s (drop(x) A) B + b)`.
#[derive(Debug, Clone, Default)]
pub struct LinearParts {
    /// `b`, `[d_out]`.
    pub bias: Option<Tensor<1>>,
    /// `s`, `A` and `B`.
    pub low_rank: Option<LowRankPart>,
    /// `f`.
    pub activation: Option<Activation>,
    /// Whether nobody looks at the output: only gradients are wanted. It may be any numbers then.
    pub is_unread: bool,
}

/// `s (drop(x) A) B`.
#[derive(Debug, Clone)]
pub struct LowRankPart {
    /// `A`, `[d_in, r]`.
    pub a: Tensor<2>,
    /// `B`, `[r, d_out]`.
    pub b: Tensor<2>,
    /// `s`.
    pub scale: f64,
    /// What drops numbers of `x` in training.
    pub dropout: Option<Dropout>,
}

impl LowRankPart {
    /// `s (drop(x) A) B`, by Burn's operations.
    fn delta(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.dropout {
            Some(dropout) => dropout.forward(x),
            None => x,
        };
        // The scale goes on the narrow side.
        let inner = module::linear(x, self.a.clone(), None) * self.scale;
        module::linear(inner, self.b.clone(), None)
    }
}

impl LinearParts {
    /// The layer's output, by Burn's operations, from that of the product `x W`.
    pub fn over(self, product: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let y = match self.bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        };
        let y = match &self.low_rank {
            Some(part) => y + part.delta(x),
            None => y,
        };
        match self.activation {
            Some(activation) => activation.forward(y),
            None => y,
        }
    }
}

#[cfg(feature = "flex")]
pub(crate) use forward::{Inner, linear, product};
