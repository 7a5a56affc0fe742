//! KronA^B: a Kronecker product beside the feed-forward network.

mod config;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Exchange, Hooks, InitContext, Insert, Kronecker, Layout, Method, Pass, Result, Site,
    SublayerEnd, SublayerFunction,
};

pub use config::{KronaAdapterConfig, krona_presets};

/// KronA^B (Edalati et al. 2022, arXiv 2212.10650): a Kronecker product in parallel to each feed-forward
/// network, `y = FFN(x) + s x (A ⊗ B)`, with `A` of shape `[m, k]` and `B` of shape `[n, l]`, where
/// `d = m n = k l`. KronA^B_res adds `s_res x`, with a trained number `s_res`.
///
/// `x` is what the network is given: where the norm comes first, behind the norm. There is no
/// non-linearity; still it cannot be merged, since there is no weight beside the network.
///
/// Created with [`KronaAdapterConfig`].
#[derive(Module, Debug)]
pub struct KronaAdapter {
    /// By [`Site::index`].
    layers: Vec<Option<KronaAdapterLayer>>,
    #[module(skip)]
    scale: f64,
}

/// The product beside one network.
#[derive(Module, Debug)]
pub struct KronaAdapterLayer {
    /// `A`, `[m, k]`.
    pub krona_a: Param<Tensor<2>>,
    /// `B`, `[n, l]`.
    pub krona_b: Param<Tensor<2>>,
    /// `s_res`, `[1]`, of KronA^B_res.
    pub residual: Option<Param<Tensor<1>>>,
}

impl KronaAdapter {
    fn new(config: &KronaAdapterConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut layers: Vec<Option<KronaAdapterLayer>> = vec![None; base.len()];
        for site in config.sites(base)? {
            let [a, b] = config.shape.at(site)?;
            // Numbers that A sums have the variance of those that it is given.
            let normal = Distribution::Normal(0.0, 1.0 / (a[0] as f64).sqrt());
            let start = Tensor::ones([1], device) * config.residual_start;
            layers[site.index] = Some(KronaAdapterLayer {
                krona_a: Param::from_tensor(context.random(a, normal)),
                krona_b: Param::from_tensor(Tensor::zeros(b, device)),
                residual: config.residual.then(|| Param::from_tensor(start)),
            });
        }
        Ok(Self { layers, scale: config.scale })
    }

    /// The product at a site, if there is one.
    pub fn layer(&self, site: &Site) -> Option<&KronaAdapterLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

/// The product at the end of a network.
#[derive(Debug)]
struct Beside<'a> {
    layer: &'a KronaAdapterLayer,
    scale: f64,
}

impl SublayerFunction for Beside<'_> {
    fn update(&self, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        let KronaAdapterLayer { krona_a, krona_b, residual } = self.layer;
        let product = Kronecker::new(krona_a.val(), krona_b.val(), self.scale);
        let product = product.product(end.input.clone());
        match residual {
            Some(factor) => product + end.input.clone() * factor.val().unsqueeze(),
            None => product,
        }
    }

    fn reads(&self, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        end.input.clone()
    }
}

impl Hooks for KronaAdapter {
    fn sublayer<'a>(&'a self, site: &Site, _pass: &Pass<'_>) -> Insert<'a> {
        match self.layer(site) {
            Some(layer) => Insert::of(Beside { layer, scale: self.scale }),
            None => Insert::None,
        }
    }
}

impl Method for KronaAdapter {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(Some(layer)) = self.layers.get_mut(site.index) else { continue };
            file.param(site.key("krona_A"), &mut layer.krona_a, Layout::Transposed);
            file.param(site.key("krona_B"), &mut layer.krona_b, Layout::Transposed);
            if let Some(residual) = &mut layer.residual {
                file.param(site.key("krona_residual"), residual, Layout::AsIs);
            }
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it adds a function beside the feed-forward networks".into())
    }
}
