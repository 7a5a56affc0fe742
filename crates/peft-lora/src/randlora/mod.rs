//! RandLoRA: a full rank from random bases.

mod bases;
mod config;

pub use config::RandloraConfig;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor, TensorData};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, NormEdit, Pass, Result,
    Site, TrainedBiases,
};

use bases::Bases;

/// RandLoRA (Albert et al. 2025, arXiv 2502.00987): `W' = W + s Σ B_j diag(λ_j) A diag(γ_j)`, a sum over as
/// many random bases of rank `r` as make up full rank. `A` and all `B_j` are frozen and the same for all
/// layers, `λ_j` and `γ_j` are of each. It is written for a weight with no more inputs than outputs, the
/// other way round; for others, the sides change places.
///
/// ```text
/// A: [r, smaller], its first min(d_in, d_out) columns     λ: [r, n]
/// B: [larger, n, r], its first max(d_in, d_out) rows      γ: [n, min(d_in, d_out)]
/// s = alpha / r    n = min(d_in, d_out) / r, rounded up
/// ```
///
/// The reference multiplies value `(k, j)` of the smaller side, of rank `k` and base `j`, with value
/// `(j, k)` of the larger in that order of numbers, not of names; so it is here.
///
/// Created with [`RandloraConfig`].
#[derive(Module, Debug)]
pub struct Randlora {
    /// `A`, `[r, 1, smaller]`, frozen.
    pub randlora_a: Param<Tensor<3>>,
    /// `B`, `[larger, n, r]`, frozen.
    pub randlora_b: Param<Tensor<3>>,
    /// By [`Site::index`].
    layers: Vec<Option<RandloraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    save_projection: bool,
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct RandloraLayer {
    /// `λ`, `[r, n]`.
    pub lambda: Param<Tensor<2>>,
    /// `γ`, `[n, min(d_in, d_out)]`.
    pub gamma: Param<Tensor<2>>,
}

impl Randlora {
    pub(crate) fn new(config: &RandloraConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let bases = config.bases(base)?;
        let Bases { rank, smaller, larger, count } = bases;
        let shapes = [[rank, 1, smaller], [larger, count, rank]];
        let tensors = match context.is_read() && config.save_projection {
            true => shapes.map(|shape| Tensor::zeros(shape, device)),
            false => {
                let [a, b] = bases.draw(config.projection_prng_key, config.kind(smaller));
                let tensor = |values, shape: [usize; 3]| {
                    Tensor::from_data(TensorData::new(values, shape), device)
                };
                [tensor(a, shapes[0]), tensor(b, shapes[1])]
            }
        };
        let [randlora_a, randlora_b] =
            tensors.map(|tensor| Param::from_tensor(tensor).set_require_grad(false));
        let mut layers = vec![None; base.len()];
        for site in config.sites(base)? {
            let (least, most) = (site.d_in().min(site.d_out()), site.d_in().max(site.d_out()));
            let count = least.div_ceil(rank);
            let (lambda, gamma) = match config.init {
                true => (Tensor::zeros([rank, count], device), count.max(least)),
                false => (context.random([rank, count], Distribution::Normal(0.0, 1.0)), most),
            };
            let gamma = Tensor::full([count, least], 1.0 / gamma as f64, device);
            let [lambda, gamma] = [lambda, gamma].map(Param::from_tensor);
            layers[site.index] = Some(RandloraLayer { lambda, gamma });
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        let RandloraConfig { save_projection, dropout, .. } = *config;
        let scaling = config.scaling();
        Ok(Self { randlora_a, randlora_b, layers, biases, save_projection, scaling, dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&RandloraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    fn factors(&self, site: &Site) -> Option<LowRank> {
        let RandloraLayer { lambda, gamma } = self.layer(site)?;
        let (lambda, gamma) = (lambda.val(), gamma.val());
        let ([rank, count], [_, least]) = (lambda.dims(), gamma.dims());
        let most = site.d_in().max(site.d_out());
        let a = self.randlora_a.val().narrow(2, 0, least);
        let b = self.randlora_b.val().narrow(0, 0, most).narrow(1, 0, count);
        // [r n, least] and [most, n r].
        let small = lambda.unsqueeze_dim::<3>(2) * a * gamma.unsqueeze_dim(0);
        let small = small.reshape([rank * count, least]);
        let large = b.reshape([most, count * rank]);
        let factors = match site.d_in() <= site.d_out() {
            true => LowRank::new(small.transpose(), large.transpose(), self.scaling),
            false => LowRank::new(large, small, self.scaling),
        };
        Some(factors.with_dropout(self.dropout))
    }
}

impl Hooks for Randlora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.factors(site).map(Edits::from);
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Randlora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        if self.save_projection {
            file.param("base_model.randlora_A", &mut self.randlora_a, Layout::AsIs);
            file.param("base_model.randlora_B", &mut self.randlora_b, Layout::AsIs);
        }
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                file.param(site.key("randlora_lambda"), &mut layer.lambda, Layout::AsIs);
                file.param(site.key("randlora_gamma"), &mut layer.gamma, Layout::AsIs);
                // The reference writes the bases once more for each layer, and does not need that.
                file.passed_over(site.key("randlora_A"));
                file.passed_over(site.key("randlora_B"));
            }
            self.biases.exchange(file, site);
        }
    }
}
