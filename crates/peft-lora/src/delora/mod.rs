//! DeLoRA: a low rank whose strength is bounded.

mod config;

pub use config::DeloraConfig;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, NormEdit, Pass, Result,
    Site, TrainedBiases,
};

use crate::start;

/// DeLoRA (Bini et al. 2025, arXiv 2503.18225): `W' = W + diag(w) A diag(λ / (r ‖a‖ ‖b‖)) B`, with `A` of
/// shape `[d_in, r]` and `B` of shape `[r, d_out]`, the norms of their `r` columns and rows, and `w` the
/// norms of the rows of `W` (one for each input), frozen: each pair has the strength `λ / r` whatever its
/// length.
///
/// Created with [`DeloraConfig`].
#[derive(Module, Debug)]
pub struct Delora {
    /// By [`Site::index`].
    layers: Vec<Option<DeloraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct DeloraLayer {
    /// `A`, `[d_in, r]`.
    pub delora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub delora_b: Param<Tensor<2>>,
    /// `λ`, `[1]`.
    pub lambda: Param<Tensor<1>>,
    /// `w`, `[d_in]`, frozen.
    pub norms: Param<Tensor<1>>,
}

/// The least norm that is divided by, as in the reference.
const LEAST_NORM: f64 = 1e-4;

impl Delora {
    pub(crate) fn new(config: &DeloraConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(DeloraLayer::new(config, site, context)?);
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        Ok(Self { layers, biases, dropout: config.dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&DeloraLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl DeloraLayer {
    fn new(config: &DeloraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let rank = config.rank_at(&site.path)?;
        let [a, b] = [[site.d_in(), rank], [rank, site.d_out()]];
        let norms = match context.is_read() {
            true => Tensor::zeros([site.d_in()], device),
            false => {
                let norms = base.weight(site).dense().square().sum_dim(1).sqrt();
                Tensor::from_data(norms.squeeze_dim::<1>(1).into_data(), device)
            }
        };
        Ok(Self {
            delora_a: start::kaiming_factor(a, context),
            delora_b: start::kaiming_or_zero(!config.init, b, context),
            lambda: Param::from_tensor(Tensor::full([1], config.lambda_at(&site.path)?, device)),
            norms: Param::from_tensor(norms).set_require_grad(false),
        })
    }

    fn factors(&self) -> LowRank {
        let (a, b) = (self.delora_a.val(), self.delora_b.val());
        let [_, rank] = a.dims();
        let norm = |squares: Tensor<1>| squares.clamp_min(LEAST_NORM * LEAST_NORM).sqrt();
        let lengths = norm(a.clone().square().sum_dim(0).squeeze_dim(0))
            * norm(b.clone().square().sum_dim(1).squeeze_dim(1));
        let strength = self.lambda.val() / rank as f64 / lengths;
        let a = a * self.norms.val().unsqueeze_dim(1);
        LowRank::new(a, b * strength.unsqueeze_dim(1), 1.0)
    }
}

impl Hooks for Delora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).map(|layer| layer.factors().with_dropout(self.dropout));
        self.biases.below(site, own.map(Edits::from))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Delora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                file.param(site.key("delora_A"), &mut layer.delora_a, Layout::Transposed);
                file.param(site.key("delora_B"), &mut layer.delora_b, Layout::Transposed);
                file.param(site.key("delora_lambda"), &mut layer.lambda, Layout::AsIs);
                file.param(site.key("delora_w_norm"), &mut layer.norms, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
