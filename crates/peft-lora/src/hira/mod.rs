//! HiRA: a low rank that multiplies the weight.

mod config;

pub use config::{HiraConfig, HiraInit};

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edit, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, Pass, Result, Site,
    SiteKind, TableEdit, WeightMap,
};

use crate::start;

/// HiRA (Huang et al. 2025, ICLR): `W' = W + W ⊙ (A B)`, with `A` of shape `[d_in, r]` and `B` of shape
/// `[r, d_out]`: a change of high rank, since the weight's own multiplies it.
///
/// Created with [`HiraConfig`].
#[derive(Module, Debug)]
pub struct Hira {
    /// By [`Site::index`].
    layers: Vec<Option<HiraLayer>>,
    #[module(skip)]
    dropout: f64,
}

/// The factors at one site: `A` is `[entries, r]` and `B` `[r, d]` at an embedding.
#[derive(Module, Debug)]
pub struct HiraLayer {
    /// `A`, `[d_in, r]`.
    pub hira_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub hira_b: Param<Tensor<2>>,
}

impl Hira {
    pub(crate) fn new(config: &HiraConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(HiraLayer::new(config, site, context)?);
        }
        Ok(Self { layers, dropout: config.dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&HiraLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl HiraLayer {
    fn new(config: &HiraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let rank = config.rank_at(&site.path)?;
        let [a, b] = [[site.d_in(), rank], [rank, site.d_out()]];
        let normal = |shape: [usize; 2], deviation: f64| {
            Param::from_tensor(context.random(shape, Distribution::Normal(0.0, deviation)))
        };
        let is_table = site.kind == SiteKind::Embedding;
        let (hira_a, hira_b) = match config.init {
            HiraInit::Random => (normal(a, 1.0), normal(b, 1.0)),
            _ if is_table => (start::zeros(a, context), normal(b, 1.0)),
            HiraInit::Kaiming => (start::kaiming_factor(a, context), start::zeros(b, context)),
            HiraInit::Gaussian => (normal(a, 1.0 / rank as f64), start::zeros(b, context)),
        };
        Ok(Self { hira_a, hira_b })
    }
}

/// `W + W ⊙ (A B)`.
#[derive(Debug)]
struct Multiplied {
    a: Tensor<2>,
    b: Tensor<2>,
    dropout: f64,
}

impl WeightMap for Multiplied {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        let weight = weight();
        let change = weight.clone() * self.a.clone().matmul(self.b.clone());
        weight + change
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }
}

impl Hooks for Hira {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match self.layer(site) {
            Some(HiraLayer { hira_a, hira_b }) if site.kind == SiteKind::Linear => {
                let (a, b) = (hira_a.val(), hira_b.val());
                Edit::Weight(Arc::new(Multiplied { a, b, dropout: self.dropout })).into()
            }
            _ => Edits::none(),
        }
    }

    fn table(&self, site: &Site, _pass: &Pass<'_>) -> TableEdit {
        match self.layer(site) {
            Some(HiraLayer { hira_a, hira_b }) if site.kind == SiteKind::Embedding => {
                TableEdit::Scaled(Box::new(LowRank::new(hira_a.val(), hira_b.val(), 1.0)))
            }
            _ => TableEdit::Keep,
        }
    }
}

impl Method for Hira {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let [a, b] = match site.kind {
                SiteKind::Embedding => ["hira_embedding_A", "hira_embedding_B"],
                _ => ["hira_A", "hira_B"],
            };
            file.param(site.key(a), &mut layer.hira_a, Layout::Transposed);
            file.param(site.key(b), &mut layer.hira_b, Layout::Transposed);
        }
    }
}
