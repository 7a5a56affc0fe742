//! VeRA: vectors around random projections that all layers share.

mod config;

pub use config::VeraConfig;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, NormEdit, Pass, Result,
    Site, TorchRandom, TrainedBiases,
};

use crate::checks;

/// VeRA (Kopiczko et al. 2023, arXiv 2310.11454): `W' = W + A diag(d) B diag(b)`, where `A` and `B` are
/// random, frozen and the same for all layers, and `d` and `b` are of each.
///
/// ```text
/// A: [largest d_in, r]   its first d_in rows       d: [r]
/// B: [r, largest d_out]  its first d_out columns   b: [d_out]
/// ```
///
/// Created with [`VeraConfig`].
#[derive(Module, Debug)]
pub struct Vera {
    /// `A`, frozen.
    pub vera_a: Param<Tensor<2>>,
    /// `B`, frozen.
    pub vera_b: Param<Tensor<2>>,
    /// By [`Site::index`].
    layers: Vec<Option<VeraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    save_projection: bool,
    #[module(skip)]
    dropout: f64,
}

/// The vectors at one site.
#[derive(Module, Debug)]
pub struct VeraLayer {
    /// `d`, `[r]`.
    pub lambda_d: Param<Tensor<1>>,
    /// `b`, `[d_out]`.
    pub lambda_b: Param<Tensor<1>>,
}

impl Vera {
    pub(crate) fn new(config: &VeraConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let sites = config.sites(base)?;
        let [d_in, d_out] = checks::largest(&sites);
        let rank = config.rank;
        let mut random = TorchRandom::new(config.projection_prng_key);
        // As in files, [r, d_in] and [d_out, r], one after the other from the same generator.
        let mut projection = |[rows, columns]: [usize; 2]| {
            let values: Tensor<2> = match context.is_read() && config.save_projection {
                true => Tensor::zeros([columns, rows], device),
                false => {
                    // Kaiming-uniform of a layer with rectified outputs: sqrt(3) sqrt(2 / fan-in).
                    let bound = 3f64.sqrt() * (2f64.sqrt() / (columns as f64).sqrt());
                    let values = random.uniform(rows * columns, -bound, bound);
                    let plain = device.clone().without_autodiff();
                    let values = TensorData::new(values, [rows, columns]);
                    let turned = Tensor::<2>::from_data(values, &plain).transpose();
                    Tensor::from_data(turned.into_data(), device)
                }
            };
            Param::from_tensor(values).set_require_grad(false)
        };
        let vera_a = projection([rank, d_in]);
        let vera_b = projection([d_out, rank]);
        let mut layers = vec![None; base.len()];
        for site in sites {
            let [d, b] = match config.init {
                true => [
                    Tensor::full([rank], config.d_initial, device),
                    Tensor::zeros([site.d_out()], device),
                ],
                false => {
                    let normal = burn::tensor::Distribution::Normal(0.0, 1.0);
                    [context.random([rank], normal), Tensor::ones([site.d_out()], device)]
                }
            };
            let [lambda_d, lambda_b] = [d, b].map(Param::from_tensor);
            layers[site.index] = Some(VeraLayer { lambda_d, lambda_b });
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        let (save_projection, dropout) = (config.save_projection, config.dropout);
        Ok(Self { vera_a, vera_b, layers, biases, save_projection, dropout })
    }

    /// The vectors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&VeraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    fn factors(&self, site: &Site) -> Option<LowRank> {
        let VeraLayer { lambda_d, lambda_b } = self.layer(site)?;
        let [d_in, d_out] = site.shape;
        let a = self.vera_a.val().narrow(0, 0, d_in) * lambda_d.val().unsqueeze_dim(0);
        let b = self.vera_b.val().narrow(1, 0, d_out) * lambda_b.val().unsqueeze_dim(0);
        Some(LowRank::new(a, b, 1.0).with_dropout(self.dropout))
    }
}

impl Hooks for Vera {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.factors(site).map(Edits::from);
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Vera {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        if self.save_projection {
            file.param("base_model.vera_A", &mut self.vera_a, Layout::Transposed);
            file.param("base_model.vera_B", &mut self.vera_b, Layout::Transposed);
        }
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                file.param(site.key("vera_lambda_d"), &mut layer.lambda_d, Layout::AsIs);
                file.param(site.key("vera_lambda_b"), &mut layer.lambda_b, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
