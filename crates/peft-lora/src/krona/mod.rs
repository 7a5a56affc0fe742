//! KronA: a Kronecker product beside a weight.

mod config;

pub use config::KronaConfig;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Kronecker, Layout, Method, Pass, Result, Site,
};

use crate::start;

/// KronA (Edalati et al. 2022, arXiv 2212.10650): `W' = W + s (A ⊗ B)`, with `A` of shape `[m, k]` and `B` of
/// shape `[n, l]`, where `d_in = m n` and `d_out = k l`.
///
/// The product has the ranks of its factors multiplied, as high as the weight's where the sides divide
/// evenly. In training it is not made: with `X` the `[m, n]` numbers of a token `x`, `x (A ⊗ B)` are those
/// of `Aᵀ X B`, the paper's `(A ⊗ B) x = vec(B mat(x) Aᵀ)`. Merged, it costs nothing.
///
/// Created with [`KronaConfig`].
#[derive(Module, Debug)]
pub struct Krona {
    /// By [`Site::index`].
    layers: Vec<Option<KronaLayer>>,
    #[module(skip)]
    scale: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct KronaLayer {
    /// `A`, `[m, k]`.
    pub krona_a: Param<Tensor<2>>,
    /// `B`, `[n, l]`.
    pub krona_b: Param<Tensor<2>>,
}

impl Krona {
    pub(crate) fn new(config: &KronaConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            let [a, b] = config.shape.at(site)?;
            let krona_a = normal(a, context);
            let krona_b = if config.init { start::zeros(b, context) } else { normal(b, context) };
            layers[site.index] = Some(KronaLayer { krona_a, krona_b });
        }
        Ok(Self { layers, scale: config.scale })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&KronaLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

/// `N(0, 1/rows)`: numbers that a factor sums have the variance of those that it is given.
fn normal(shape: [usize; 2], context: &InitContext<'_>) -> Param<Tensor<2>> {
    let deviation = 1.0 / (shape[0] as f64).sqrt();
    Param::from_tensor(context.random(shape, Distribution::Normal(0.0, deviation)))
}

impl Hooks for Krona {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match self.layer(site) {
            Some(KronaLayer { krona_a, krona_b }) => {
                Kronecker::new(krona_a.val(), krona_b.val(), self.scale).into()
            }
            None => Edits::none(),
        }
    }
}

impl Method for Krona {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("krona_A"), &mut layer.krona_a, Layout::Transposed);
                file.param(site.key("krona_B"), &mut layer.krona_b, Layout::Transposed);
            }
        }
    }
}
