//! The feed-forward network.

use burn::tensor::Tensor;
use peft_core::{Activation, Role};

use super::{FrozenLinear, Pass};
use crate::Result;
use crate::checkpoint::Loader;

/// `activation(x W₁ + b₁) W₂ + b₂`.
#[derive(Debug, Clone)]
pub struct FeedForward {
    up: FrozenLinear,
    down: FrozenLinear,
    activation: Activation,
}

impl FeedForward {
    /// Loads the projections at `up_path` and `down_path`.
    pub fn load(
        loader: &mut Loader<'_>,
        [up_path, down_path]: [&str; 2],
        layer: usize,
        [d, d_inner]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let layer = Some(layer);
        let up = FrozenLinear::load(loader, up_path, Role::FeedForwardUp, layer, [d, d_inner])?;
        let down =
            FrozenLinear::load(loader, down_path, Role::FeedForwardDown, layer, [d_inner, d])?;
        Ok(Self { up, down, activation })
    }

    /// `[batch, tokens, d]` to the same.
    pub fn forward(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        let inner = self.activation.forward(self.up.forward(hidden, pass));
        self.down.forward(inner, pass)
    }
}
