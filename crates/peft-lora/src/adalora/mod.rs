//! AdaLoRA: singular values that share a budget.

mod allocate;
mod config;
mod schedule;

pub use config::AdaloraConfig;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Key, Layout, LossContext, LowRank, Method, NormEdit,
    Pass, Result, Site, StepContext, TrainedBiases,
};

use crate::start;
use allocate::Scores;
use schedule::Schedule;

/// AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): `W' = W + s A diag(e) B`, the form of a singular value
/// decomposition, of which training keeps the singular values that matter most, over all layers.
///
/// ```text
/// A: [d_in, r]   e: [r], from zero   B: [r, d_out]       s = alpha / (init_r + 1e-5)
/// loss + w mean(‖Aᵀ A - I‖, ‖B Bᵀ - I‖)                   over all A and B
/// ```
///
/// Each value of `A`, `e` and `B` has a running mean `I` of its sensitivity `|x ∂L/∂x|`, and one `U` of
/// how far a step's is from that mean; its importance is `I U`, and that of a singular value is its own and
/// the means of those of its column of `A` and row of `B`. The budget, a number of singular values, falls
/// from all of them to `target_r` for each layer along a cubic; at every `deltaT`-th step the least
/// important ones beyond it are set to zero, and from the end of the schedule on they stay there.
///
/// Created with [`AdaloraConfig`].
#[derive(Module, Debug)]
pub struct Adalora {
    /// By [`Site::index`].
    layers: Vec<Option<AdaloraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    schedule: Schedule,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    orth_reg_weight: f64,
}

/// The decomposition at one site.
#[derive(Module, Debug)]
pub struct AdaloraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// `e`, `[1, r]`.
    pub lora_e: Param<Tensor<2>>,
    /// Which singular values are kept once the budget is settled: ones, and zeros, `[1, r]`.
    kept: Param<Tensor<2>>,
    scores: Scores,
    #[module(skip)]
    scaling: f64,
}

impl Adalora {
    pub(crate) fn new(config: &AdaloraConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(AdaloraLayer::new(config, site, context));
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        let AdaloraConfig { dropout, orth_reg_weight, .. } = *config;
        Ok(Self { layers, biases, schedule: config.into(), dropout, orth_reg_weight })
    }

    /// The decomposition at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&AdaloraLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl AdaloraLayer {
    fn new(config: &AdaloraConfig, site: &Site, context: &InitContext<'_>) -> Self {
        let rank = config.rank_at(site);
        let [a, b, e] = [[site.d_in(), rank], [rank, site.d_out()], [1, rank]];
        let normal = |shape: [usize; 2], deviation: f64| match rank {
            0 => start::zeros(shape, context),
            _ => {
                let normal = Distribution::Normal(0.0, deviation);
                Param::from_tensor(context.random(shape, normal))
            }
        };
        let deviation = if config.init { 0.02 } else { 1.0 };
        Self {
            lora_a: normal(a, deviation),
            lora_b: normal(b, deviation),
            lora_e: match config.init {
                true => start::zeros(e, context),
                false => normal(e, 1.0),
            },
            kept: Param::from_tensor(Tensor::ones(e, context.device)).set_require_grad(false),
            scores: Scores::new([a, b, e], context.device),
            scaling: config.scaling(rank),
        }
    }

    fn rank(&self) -> usize {
        self.lora_e.lazy_shape()[1]
    }

    /// `‖Aᵀ A - I‖` and `‖B Bᵀ - I‖`.
    fn distances_from_orthogonal(&self) -> [Tensor<1>; 2] {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        [a.clone().transpose().matmul(a), b.clone().matmul(b.transpose())].map(|products| {
            let one = Tensor::eye(products.dims()[0], &products.device().without_autodiff());
            // At nothing the root has no derivative.
            (products - one).square().sum().clamp_min(f64::from(f32::MIN_POSITIVE)).sqrt()
        })
    }
}

impl Hooks for Adalora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).filter(|layer| layer.rank() > 0).map(|layer| {
            let a = layer.lora_a.val() * layer.lora_e.val();
            LowRank::new(a, layer.lora_b.val(), layer.scaling).with_dropout(self.dropout)
        });
        self.biases.below(site, own.map(Edits::from))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Adalora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                file.param(site.key("lora_A"), &mut layer.lora_a, Layout::Transposed);
                file.param(site.key("lora_B"), &mut layer.lora_b, Layout::Transposed);
                let e = Key::from(site.key("lora_E"));
                file.param(e, &mut layer.lora_e, Layout::Transposed);
            }
            self.biases.exchange(file, site);
        }
    }

    fn loss(&self, _context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        if self.orth_reg_weight == 0.0 {
            return Ok(None);
        }
        let layers = self.layers.iter().flatten();
        let count = 2 * layers.clone().count();
        let distances = layers
            .filter(|layer| layer.rank() > 0)
            .flat_map(AdaloraLayer::distances_from_orthogonal);
        let sum = distances.reduce(|sum, distance| sum + distance);
        Ok(sum.map(|sum| sum * (self.orth_reg_weight / count as f64)))
    }

    fn after_step(&mut self, context: &StepContext<'_>) {
        self.allocate(context);
    }
}
