//! Invertible adapters at the embeddings.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use peft_core::{Activation, Exchange, InitContext, Key};

use crate::InvertibleKind;
use crate::projection::{bert_linear, exchange_linear};

/// An invertible function of hidden states `[tokens, d]`: what it does to the embeddings is
/// undone before a language-model head compares hidden states with them (MAD-X, Pfeiffer et al.
/// 2020, arXiv 2005.00052).
///
/// It splits the channels into `x₁`, the first `d / 2`, and `x₂`, the rest.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Coupling {
    /// Additive.
    Nice(Nice),
    /// Affine.
    Glow(Glow),
}

impl Coupling {
    /// A coupling of `d` channels with hidden layers `reduction` times narrower than their inputs.
    pub(crate) fn new(
        kind: InvertibleKind,
        d: usize,
        reduction: f64,
        activation: Activation,
        context: &InitContext<'_>,
    ) -> Self {
        let (first, second) = (d / 2, d - d / 2);
        let subnet = |d_in, d_out| Subnet::new([d_in, d_out], reduction, activation, context);
        match kind {
            InvertibleKind::Nice => {
                Self::Nice(Nice { f: subnet(second, first), g: subnet(first, second) })
            }
            InvertibleKind::Glow => {
                Self::Glow(Glow { s1: subnet(first, 2 * second), s2: subnet(second, 2 * first) })
            }
        }
    }

    /// The function, `[tokens, d]` to the same shape.
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Nice(nice) => nice.forward(hidden),
            Self::Glow(glow) => glow.forward(hidden),
        }
    }

    /// Its inverse.
    pub fn inverse(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Nice(nice) => nice.inverse(hidden),
            Self::Glow(glow) => glow.inverse(hidden),
        }
    }

    /// The tensors; `adapters`' keys begin with `prefix`, the base model's name and a dot.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, prefix: &str) {
        let subnets = match self {
            Self::Nice(Nice { f, g }) => [("F", f), ("G", g)],
            Self::Glow(Glow { s1, s2 }) => [("s1", s1), ("s2", s2)],
        };
        for (name, Subnet { down, up, .. }) in subnets {
            // The activation between them has the index 1.
            for (index, linear) in [(0, down), (2, up)] {
                exchange_linear(linear, file, |leaf| {
                    let path = format!("{name}.{index}.{leaf}");
                    Key::from(format!("base_model.model.invertible_adapter.{path}"))
                        .adapters(format!("{prefix}invertible_adapters.{{}}.{path}"))
                });
            }
        }
    }
}

/// Additive coupling, `y₁ = x₁ + F(x₂)`, `y₂ = x₂ + G(y₁)`.
#[derive(Module, Debug)]
pub struct Nice {
    /// `F`, `[.., d₂]` to `[.., d₁]`.
    pub f: Subnet,
    /// `G`, `[.., d₁]` to `[.., d₂]`.
    pub g: Subnet,
}

impl Nice {
    fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (x1, x2) = halves(hidden);
        let y1 = x1 + self.f.forward(x2.clone());
        let y2 = x2 + self.g.forward(y1.clone());
        Tensor::cat(vec![y1, y2], 1)
    }

    fn inverse(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (y1, y2) = halves(hidden);
        let x2 = y2 - self.g.forward(y1.clone());
        let x1 = y1 - self.f.forward(x2.clone());
        Tensor::cat(vec![x1, x2], 1)
    }
}

/// Affine coupling, `y₁ = e(s) x₁ + t` with `(s, t) = S₂(x₂)`, then `y₂ = e(s) x₂ + t` with
/// `(s, t) = S₁(y₁)`. The amplification `e(s) = exp(c · 0.636 · atan(s / c))`, `c = 5`, lies
/// between `exp(-c)` and `exp(c)`.
#[derive(Module, Debug)]
pub struct Glow {
    /// `S₁`, `[.., d₁]` to `[.., 2 d₂]`.
    pub s1: Subnet,
    /// `S₂`, `[.., d₂]` to `[.., 2 d₁]`.
    pub s2: Subnet,
}

const CLAMP: f64 = 5.0;

impl Glow {
    fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (x1, x2) = halves(hidden);
        let (s, t) = halves(self.s2.forward(x2.clone()));
        let y1 = amplification(s) * x1 + t;
        let (s, t) = halves(self.s1.forward(y1.clone()));
        let y2 = amplification(s) * x2 + t;
        Tensor::cat(vec![y1, y2], 1)
    }

    fn inverse(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (y1, y2) = halves(hidden);
        let (s, t) = halves(self.s1.forward(y1.clone()));
        let x2 = (y2 - t) / amplification(s);
        let (s, t) = halves(self.s2.forward(x2.clone()));
        let x1 = (y1 - t) / amplification(s);
        Tensor::cat(vec![x1, x2], 1)
    }
}

fn amplification(s: Tensor<2>) -> Tensor<2> {
    // 0.636 is about 2/π: atan then ends at the clamp.
    ((s / CLAMP).atan() * (0.636 * CLAMP)).exp()
}

fn halves(tensor: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let d = tensor.dims()[1];
    (tensor.clone().narrow(1, 0, d / 2), tensor.narrow(1, d / 2, d - d / 2))
}

/// Two linear layers with an activation between them.
#[derive(Module, Debug)]
pub struct Subnet {
    /// `[d_in, d_in / reduction]`.
    pub down: Linear,
    /// `[d_in / reduction, d_out]`.
    pub up: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Subnet {
    fn new(
        [d_in, d_out]: [usize; 2],
        reduction: f64,
        activation: Activation,
        context: &InitContext<'_>,
    ) -> Self {
        let inner = ((d_in as f64 / reduction).floor() as usize).max(1);
        let (down, up) =
            (bert_linear([d_in, inner], context), bert_linear([inner, d_out], context));
        Self { down, up, activation }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.up.forward(self.activation.forward(self.down.forward(input)))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{ModuleMapper, Param};
    use burn::tensor::{Device, Distribution, Tolerance};
    use peft_core::Base;

    use super::*;

    /// Weights far from their start, so that the function is far from the identity.
    struct Widen;

    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let noise = tensor.random_like(Distribution::Normal(0.0, 0.5));
                tensor + noise
            })
        }
    }

    #[test]
    fn the_inverse_gives_the_input_back() {
        let device = Device::default();
        let base = Base::new(&device);
        let context = &InitContext::new(&base, &device);
        for kind in [InvertibleKind::Nice, InvertibleKind::Glow] {
            for d in [8, 9] {
                let coupling =
                    Coupling::new(kind, d, 2.0, Activation::Relu, context).map(&mut Widen);
                let normal = Distribution::Normal(0.0, 1.0);
                let input = Tensor::<2>::random([10, d], normal, &device);
                let output = coupling.forward(input.clone());
                let moved: f32 = (output.clone() - input.clone()).abs().max().into_scalar();
                assert!(moved > 0.1, "{kind:?} of {d} moves by {moved} only");
                let back = coupling.inverse(output).into_data();
                back.assert_approx_eq(&input.into_data(), Tolerance::<f32>::absolute(1e-4));
            }
        }
    }
}
