//! LoHa: an elementwise product of two low ranks.

mod config;

pub use config::LohaConfig;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Added, Base, Edit, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, Pass, Result,
    Site,
};

use crate::start::{self, Dropped};

/// LoHa (Hyeon-Woo et al. 2021, arXiv 2108.06098): `W' = W + (alpha / r) (A₁ B₁) ⊙ (A₂ B₂)`, with `Aᵢ`
/// of shape `[d_in, r]` and `Bᵢ` of shape `[r, d_out]`: a change of rank `r²` for twice LoRA's values.
///
/// It is one low rank of `r²`, and runs as such where that is low: column `(p, q)` of its `A` is `A₁[:, p] ⊙ A₂[:, q]`,
/// and row `(p, q)` of its `B` `B₁[p, :] ⊙ B₂[q, :]`.
///
/// Created with [`LohaConfig`].
#[derive(Module, Debug)]
pub struct Loha {
    /// By [`Site::index`].
    layers: Vec<Option<LohaLayer>>,
    #[module(skip)]
    rank_dropout: f64,
    #[module(skip)]
    module_dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct LohaLayer {
    /// `A₁`, `[d_in, r]`.
    pub a1: Param<Tensor<2>>,
    /// `B₁`, `[r, d_out]`.
    pub b1: Param<Tensor<2>>,
    /// `A₂`, `[d_in, r]`.
    pub a2: Param<Tensor<2>>,
    /// `B₂`, `[r, d_out]`.
    pub b2: Param<Tensor<2>>,
    #[module(skip)]
    scaling: f64,
}

impl Loha {
    pub(crate) fn new(config: &LohaConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            let (rank, scaling) = (config.rank_at(&site.path)?, config.scaling(&site.path)?);
            let [a, b] = [[site.d_in(), rank], [rank, site.d_out()]];
            layers[site.index] = Some(LohaLayer {
                b1: start::kaiming_factor(b, context),
                a1: start::kaiming_factor(a, context),
                b2: start::kaiming_factor(b, context),
                a2: start::kaiming_or_zero(!config.init, a, context),
                scaling,
            });
        }
        let LohaConfig { rank_dropout, module_dropout, .. } = *config;
        Ok(Self { layers, rank_dropout, module_dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&LohaLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl LohaLayer {
    fn rank(&self) -> usize {
        self.a1.lazy_shape()[1]
    }

    /// The change as one low rank, `[d_in, r²]` and `[r², d_out]`.
    fn factors(&self) -> [Tensor<2>; 2] {
        let columns = |first: Tensor<2>, second: Tensor<2>| {
            let [d_in, rank] = first.dims();
            (first.unsqueeze_dim::<3>(2) * second.unsqueeze_dim(1)).reshape([d_in, rank * rank])
        };
        let rows = |first: Tensor<2>, second: Tensor<2>| {
            let [rank, d_out] = first.dims();
            (first.unsqueeze_dim::<3>(1) * second.unsqueeze_dim(0)).reshape([rank * rank, d_out])
        };
        [columns(self.a1.val(), self.a2.val()), rows(self.b1.val(), self.b2.val())]
    }

    /// The change as it is, `[d_in, d_out]`.
    fn dense(&self) -> Tensor<2> {
        let product = |a: &Param<Tensor<2>>, b: &Param<Tensor<2>>| a.val().matmul(b.val());
        product(&self.a1, &self.b1) * product(&self.a2, &self.b2) * self.scaling
    }
}

impl Hooks for Loha {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(layer) = self.layer(site) else { return Edits::none() };
        let device = layer.a1.lazy_device();
        let dropped =
            Dropped { module: self.module_dropout, rank: self.rank_dropout, rank_is_scaled: true };
        let columns = dropped.columns(site.d_out(), &device, pass);
        let in_columns = |values: Tensor<2>| match &columns {
            Some(factors) => values * factors.clone().unsqueeze(),
            None => values,
        };
        let rank = layer.rank() * layer.rank();
        if rank >= site.d_in().min(site.d_out()) {
            return Edit::Weight(Arc::new(Added {
                values: in_columns(layer.dense()),
                rank: Some(rank),
            }))
            .into();
        }
        let [a, b] = layer.factors();
        LowRank::new(a, in_columns(b), layer.scaling).into()
    }
}

impl Method for Loha {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let LohaLayer { a1, b1, a2, b2, .. } = layer;
            // The reference's `a` is on the side of the output.
            for (name, factor) in
                [("hada_w1_a", b1), ("hada_w1_b", a1), ("hada_w2_a", b2), ("hada_w2_b", a2)]
            {
                file.param(site.key(name), factor, Layout::Transposed);
            }
        }
    }
}
