//! The feed-forward network.

use burn::tensor::Tensor;
use peft_core::{Activation, Role};

use super::{FrozenLinear, LinearForm};
use crate::Result;
use crate::checkpoint::Loader;
use crate::forward::Run;

/// `activation(x W₁ + b₁) W₂ + b₂`, or with a gate `(activation(x W_g + b_g) ⊙ (x W₁ + b₁)) W₂ + b₂`.
#[derive(Debug, Clone)]
pub struct FeedForward {
    gate: Option<FrozenLinear>,
    up: FrozenLinear,
    down: FrozenLinear,
    activation: Activation,
    dropout: f64,
}

/// What a [`FeedForward`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardSpec<'a> {
    /// The path of the gate, if there is one.
    pub gate: Option<&'a str>,
    /// The path of the first projection.
    pub up: &'a str,
    /// The path of the second projection.
    pub down: &'a str,
    /// What the projections are in the checkpoint.
    pub form: LinearForm,
    /// The hidden size, and the network's own.
    pub widths: [usize; 2],
    /// The activation.
    pub activation: Activation,
    /// Dropout on what the second projection is given.
    pub dropout: f64,
}

impl FeedForward {
    /// Takes the projections.
    pub fn load(
        loader: &mut Loader<'_>,
        layer: Option<usize>,
        spec: &FeedForwardSpec<'_>,
    ) -> Result<Self> {
        let [d, inner] = spec.widths;
        let mut linear =
            |path, role, shape| FrozenLinear::load(loader, path, role, layer, shape, spec.form);
        let gate = spec.gate.map(|path| linear(path, Role::FeedForwardGate, [d, inner]));
        let gate = gate.transpose()?;
        let up = linear(spec.up, Role::FeedForwardUp, [d, inner])?;
        let down = linear(spec.down, Role::FeedForwardDown, [inner, d])?;
        Ok(Self { gate, up, down, activation: spec.activation, dropout: spec.dropout })
    }

    /// `[tokens, d]` to the same; any numbers where the output is unread, and only gradients are wanted.
    pub fn forward(&self, hidden: Tensor<2>, is_unread: bool, run: Run<'_>) -> Tensor<2> {
        let inner = match &self.gate {
            Some(gate) => {
                let gate = gate.forward(hidden.clone(), run);
                self.activation.gated(gate, self.up.forward(hidden, run))
            }
            None => self.up.activated(Some(self.activation), hidden, run),
        };
        self.down.unread(is_unread, run.pass.dropout(inner, self.dropout), run)
    }
}
