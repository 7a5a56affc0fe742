//! A learned gate.

use burn::tensor::{Tensor, activation::sigmoid, module::linear};

use crate::{Pass, Site};

/// A gate with one value for each row of a batch, `g = meanₜ σ(xₜ w + b)` (UniPELT, Mao et al.
/// 2022, arXiv 2110.07577, §3.2). The mean runs over all places of the row, padding included, as in
/// the reference: a method with a gate [needs padding](crate::Hooks::needs_padding).
#[derive(Debug, Clone)]
pub struct Gate {
    /// `w`, `[d, 1]`.
    pub weight: Tensor<2>,
    /// `b`, `[1]`.
    pub bias: Tensor<1>,
    /// What it multiplies of a linear layer.
    pub on: GateOn,
    /// What a probe calls it.
    pub name: String,
}

/// What of a linear layer a gate multiplies: `y'` is its output under the method, `y` without it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GateOn {
    /// What the method changes: `y + g (y' - y)`. A closed gate leaves the layer as it was.
    #[default]
    Change,
    /// The outputs that the method changes: `g y'` in their columns. That is a gate of (IA)³ in
    /// adapter-hub/adapters, `y ⊙ g l`. A closed one leaves nothing of them.
    Output,
}

impl Gate {
    /// `[rows, 1]` for what the method reads at a site, `[tokens, d]`.
    pub(crate) fn of_rows(&self, site: &Site, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let open = sigmoid(linear(x, self.weight.clone(), Some(self.bias.clone())));
        let open = pass.rows.mean(open);
        pass.record(site, &self.name, || open.clone());
        open
    }

    /// The same for each token, `[tokens, 1]`.
    pub(crate) fn of_tokens(&self, site: &Site, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        pass.rows.spread(self.of_rows(site, x, pass))
    }
}
