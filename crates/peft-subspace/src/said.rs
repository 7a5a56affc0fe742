//! SAID: all weights move together, in a random subspace.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Added, Base, Edit, Edits, Error, Exchange, Hooks, InitContext, Layout, MemoKey, Method, Pass,
    Result, Site, TorchRandom,
};

use crate::{Fastfood, FastfoodBlocks, SaidConfig};

/// Structure-aware intrinsic dimension (Aghajanyan, Zettlemoyer and Gupta 2021, arXiv 2012.13255):
/// `y = x (W + λ M θ) + b`, where `θ` is one vector for the whole model, `λ` a number for each of its layers,
/// and `M θ` the entries of a `[d_in, d_out]` by a random matrix that stays as it is. `θ` starts at zero,
/// `λ` at one; `θ` and all `λ` have `intrinsic_dimension` values together. Without `λ` it is the direct
/// intrinsic dimension (DID).
///
/// The crate's documentation says how `M` is made. Entries are in the order of `[d_in, d_out]`.
///
/// Created with [`SaidConfig`].
#[derive(Module, Debug)]
pub struct Said {
    /// `θ`, `[d]`.
    theta: Param<Tensor<1>>,
    /// `λ`, `[layers]`: one for each transformer layer, and one for what is in none, if there is any.
    lambda: Option<Param<Tensor<1>>>,
    #[module(skip)]
    fastfood: Fastfood,
    /// By [`Site::index`].
    #[module(skip)]
    projections: Vec<Option<Projection>>,
}

/// How `θ` moves one weight.
#[derive(Debug, Clone)]
struct Projection {
    blocks: FastfoodBlocks,
    /// Which `λ` it has.
    group: usize,
}

impl Said {
    pub(crate) fn new(config: &SaidConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let sites = config.sites(base)?;
        let mut layers: Vec<Option<usize>> = sites.iter().map(|site| site.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let of_lambda = if config.structure_aware { layers.len() } else { 0 };
        let dimension = config.intrinsic_dimension;
        let d = dimension.checked_sub(of_lambda).filter(|d| *d > 0).ok_or_else(|| {
            let expected = format!("must be above {of_lambda}, which are one for each layer");
            Error::config("intrinsic_dimension", dimension, expected)
        })?;
        let mut random = TorchRandom::new(u64::from(config.projection_seed));
        let fastfood = Fastfood::new(d, &mut random, device);
        let mut projections = vec![None; base.len()];
        for site in sites {
            let count = site.d_in() * site.d_out();
            let blocks = FastfoodBlocks::new(&fastfood, count, &mut random, device);
            let group = layers.binary_search(&site.layer).unwrap_or(0);
            projections[site.index] = Some(Projection { blocks, group });
        }
        let theta = Param::from_tensor(Tensor::zeros([d], device));
        let lambda = (of_lambda > 0).then(|| Param::from_tensor(Tensor::ones([of_lambda], device)));
        Ok(Self { theta, lambda, fastfood, projections })
    }

    /// `λ M θ`, `[d_in, d_out]`.
    fn change(&self, site: &Site, projection: &Projection, pass: &Pass<'_>) -> Tensor<2> {
        let key = MemoKey { of: self.theta.id, name: "mixed", site: None };
        let mixed = pass.memo.get(key, || self.fastfood.mixed(self.theta.val()));
        let change = projection.blocks.spread(mixed);
        let change = match &self.lambda {
            Some(lambda) => change * lambda.val().narrow(0, projection.group, 1),
            None => change,
        };
        change.reshape(site.shape)
    }
}

impl Hooks for Said {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(Some(projection)) = self.projections.get(site.index) else {
            return Edits::none();
        };
        let key = MemoKey { of: self.theta.id, name: "change", site: Some(site.index) };
        let values = pass.memo.get(key, || self.change(site, projection, pass));
        Edit::Weight(Arc::new(Added { values, rank: None })).into()
    }
}

impl Method for Said {
    fn exchange(&mut self, file: &mut Exchange<'_>, _base: &Base) {
        file.param("base_model.model.said_theta", &mut self.theta, Layout::AsIs);
        if let Some(lambda) = &mut self.lambda {
            file.param("base_model.model.said_lambda", lambda, Layout::AsIs);
        }
    }
}
