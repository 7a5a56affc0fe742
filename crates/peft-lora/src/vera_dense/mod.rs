//! VeRA as adapter-hub/adapters has it: with matrices where the paper has vectors.

mod adapters_format;
mod config;

pub use config::DenseVeraConfig;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Error, Exchange, Hooks, InitContext, Key, Layout, LowRank, Method, Pass, Result,
    Site,
};

/// VeRA with full matrices: `W' = W + s A D B M`, where `A` and `B` are the same for all layers, and `D`
/// and `M` of each.
///
/// ```text
/// A: [d_in, r]    D: [r, r]    B: [r, d_out]    M: [d_out, d_out]
/// ```
///
/// It is what adapter-hub/adapters calls VeRA. The paper (Kopiczko et al. 2023, arXiv 2310.11454) has
/// vectors for `D` and `M`, a fraction of the size, no scale, and frozen `A` and `B`, which that library
/// trains: for anything but its files take [`Vera`](crate::Vera).
///
/// Created with [`DenseVeraConfig`].
#[derive(Module, Debug)]
pub struct DenseVera {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// By [`Site::index`].
    layers: Vec<Option<DenseVeraLayer>>,
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: f64,
}

/// The matrices at one site.
#[derive(Module, Debug)]
pub struct DenseVeraLayer {
    /// `D`, `[r, r]`.
    pub vera_d: Param<Tensor<2>>,
    /// `M`, `[d_out, d_out]`.
    pub vera_b: Param<Tensor<2>>,
}

impl DenseVera {
    pub(crate) fn new(config: &DenseVeraConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let (sites, rank) = (config.sites(base)?, config.rank);
        let [d_in, d_out] = sites[0].shape;
        if let Some(other) = sites.iter().find(|site| site.shape != sites[0].shape) {
            let expected = format!(
                "the layers share matrices, and must be of one shape: {} is {:?}, {} {:?}",
                sites[0].path, sites[0].shape, other.path, other.shape
            );
            return Err(Error::config("target_modules", "(given)", expected));
        }
        // Kaiming-uniform of a layer with rectified outputs, by what they sum over.
        let uniform = |shape: [usize; 2]| {
            let bound = (6.0 / shape[0] as f64).sqrt();
            Param::from_tensor(context.random(shape, Distribution::Uniform(-bound, bound)))
        };
        let diagonal =
            |size: usize, value: f64| Param::from_tensor(Tensor::<2>::eye(size, device) * value);
        let mut layers = vec![None; base.len()];
        for site in sites {
            let vera_d = diagonal(rank, config.d_initial);
            let vera_b = diagonal(d_out, config.b_initial);
            layers[site.index] = Some(DenseVeraLayer { vera_d, vera_b });
        }
        let (lora_a, lora_b) = (uniform([d_in, rank]), uniform([rank, d_out]));
        let (scaling, dropout) = (config.scaling(), config.dropout);
        Ok(Self { lora_a, lora_b, layers, scaling, dropout })
    }

    /// The matrices at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&DenseVeraLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl Hooks for DenseVera {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(DenseVeraLayer { vera_d, vera_b }) = self.layer(site) else {
            return Edits::none();
        };
        let a = self.lora_a.val().matmul(vera_d.val());
        let b = self.lora_b.val().matmul(vera_b.val());
        LowRank::new(a, b, self.scaling).with_dropout(self.dropout).into()
    }
}

impl Method for DenseVera {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let shared = |name: &str| {
            let theirs = format!("{}shared_parameters.{{}}.{name}", base.model_prefix());
            Key::from(format!("base_model.{name}")).adapters(theirs)
        };
        file.param(shared("lora_A"), &mut self.lora_a, Layout::Transposed);
        file.param(shared("lora_B"), &mut self.lora_b, Layout::Transposed);
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let key = |name: &str| {
                Key::from(site.key(name)).adapters(format!("{}.loras.{{}}.{name}", site.path))
            };
            file.param(key("vera_D"), &mut layer.vera_d, Layout::Transposed);
            file.param(key("vera_B"), &mut layer.vera_b, Layout::Transposed);
        }
    }
}
