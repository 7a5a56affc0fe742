//! A method whose change of a weight is none of the closed forms: an open map.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Change, Edit, Edits, Error, Exchange, Hooks, InitContext, Layout, Method, MethodConfig,
    Pass, Result, Site, Targets, WeightMap,
};
use serde::{Deserialize, Serialize};

use crate::DEFAULT_ROLES;

/// Configuration of [`KronA`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KronAConfig {
    /// The shape of `A`, `[p, q]`: `p` divides the width of the input, `q` that of the output.
    pub shape: [usize; 2],
    /// `s`.
    pub scale: f64,
    /// What is adapted; queries and values by default.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for KronAConfig {
    fn default() -> Self {
        Self { shape: [4, 2], scale: 1.0, targets: Targets::default() }
    }
}

impl MethodConfig for KronAConfig {
    const NAME: &'static str = "krona";
    const PEFT_TYPE: &'static str = "KRONA";
    const ABOUT: &'static str = "a Kronecker product added to each weight (Edalati et al. 2022)";
    const LEARNING_RATE: f64 = 1e-3;
    type Method = KronA;

    fn validate(&self) -> Result<()> {
        if self.shape.contains(&0) {
            let value = format!("{:?}", self.shape);
            return Err(Error::config("shape", value, "must be at least [1, 1]"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<KronA> {
        let ([p, q], mut layers) = (self.shape, vec![None; context.base.len()]);
        for site in self.targets.resolve(context.base, DEFAULT_ROLES)? {
            let [d_in, d_out] = site.shape;
            if !(d_in.is_multiple_of(p) && d_out.is_multiple_of(q)) {
                let expected = format!("must divide the shape of {site}");
                return Err(Error::config("shape", format!("{:?}", self.shape), expected));
            }
            let bound = 1.0 / (p as f64).sqrt();
            let uniform = Distribution::Uniform(-bound, bound);
            let a = context.random(self.shape, uniform);
            // Zeros, so that the start is the base.
            let b = Tensor::zeros([d_in / p, d_out / q], context.device);
            layers[site.index] = Some([a, b].map(Param::from_tensor));
        }
        Ok(KronA { layers, scale: self.scale })
    }
}

/// `W' = W + s (A ⊗ B)` with `A` of shape `[p, q]` and `B` of shape `[d_in / p, d_out / q]` (KronA,
/// Edalati et al. 2022, arXiv 2212.10650). Created with [`KronAConfig`].
#[derive(Module, Debug)]
pub struct KronA {
    /// `A` and `B`, by [`Site::index`].
    layers: Vec<Option<[Param<Tensor<2>>; 2]>>,
    #[module(skip)]
    scale: f64,
}

impl Hooks for KronA {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some([a, b]) = &self.layers[site.index] else { return Edits::none() };
        let map = AddKronecker { a: a.val(), b: b.val(), scale: self.scale };
        Edits::from(Edit::Weight(Arc::new(map)))
    }
}

impl Method for KronA {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some([a, b]) = &mut self.layers[site.index] else { continue };
            file.param(site.key("krona_A"), a, Layout::Transposed);
            file.param(site.key("krona_B"), b, Layout::Transposed);
        }
    }
}

/// `W + s (A ⊗ B)`, as a function of `W`.
#[derive(Debug)]
struct AddKronecker {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
}

impl AddKronecker {
    /// `s (A ⊗ B)`: the block at `(i, j)` is `s Aᵢⱼ B`.
    fn product(&self) -> Tensor<2> {
        let ([p, q], [m, n]) = (self.a.dims(), self.b.dims());
        let blocks = self.a.clone().reshape([p, 1, q, 1]) * self.b.clone().reshape([1, m, 1, n]);
        blocks.reshape([p * m, q * n]) * self.scale
    }
}

impl WeightMap for AddKronecker {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() + self.product()
    }

    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        Some(weight - self.product())
    }

    fn change(&self, site: &Site) -> Change {
        // The rank of a Kronecker product is the product of the ranks.
        let full = |[rows, columns]: [usize; 2]| rows.min(columns);
        let rank = full(self.a.dims()) * full(self.b.dims());
        Change { weight: site.d_in() * site.d_out(), bias: 0, rank }
    }
}
