//! LoRA, rsLoRA, DoRA and PiSSA: the same two factors at a layer.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edit, Edits, Error, Exchange, Hooks, InitContext, Key, Layout, LowRank, Magnitude,
    MemoKey, Method, NormEdit, Pass, Result, Site, trained_copy,
};

use crate::config::DEFAULT_ROLES;
use crate::{LoraBias, LoraConfig, LoraInit};

/// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `W' = W + s A B`, with `A` of shape
/// `[d_in, r]` and `B` of shape `[r, d_out]`.
///
/// It runs in factored form, `x W + b + s (x A) B`: no `[d_in, d_out]` gradient is ever formed.
///
/// Created with [`LoraConfig`].
#[derive(Module, Debug)]
pub struct Lora {
    /// By [`Site::index`].
    layers: Vec<Option<LoraLayer>>,
    /// Trained biases, by [`Site::index`].
    biases: Vec<Option<Param<Tensor<1>>>>,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    lr_ratio: Option<f64>,
}

/// The factors at one site. Where `n` parts of a fused projection are adapted on their own, theirs
/// are side by side: `A` is `[d_in, n r]`, `B` is `[r, n d_out / 3]`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// The columns of each part of a fused projection; none for the whole.
    #[module(skip)]
    parts: Vec<Range<usize>>,
    /// DoRA's magnitude `m`, `[d_out]`.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// `A₀` and `B₀`, that PiSSA started from.
    start: Option<[Param<Tensor<2>>; 2]>,
    /// Whether it is the saved one.
    #[module(skip)]
    restored: bool,
    #[module(skip)]
    scaling: f64,
}

impl Lora {
    pub(crate) fn new(config: &LoraConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for site in config.targets.resolve(base, DEFAULT_ROLES)? {
            layers[site.index] = Some(LoraLayer::new(config, site, context)?);
        }
        let mut biases = vec![None; base.len()];
        for entry in base.iter() {
            let index = entry.site.index;
            let trained = match config.bias {
                LoraBias::None => false,
                LoraBias::All => true,
                LoraBias::LoraOnly => layers[index].is_some(),
            };
            if let (true, Some(bias)) = (trained, &entry.bias) {
                biases[index] = Some(trained_copy(bias, device));
            }
        }
        Ok(Self { layers, biases, dropout: config.dropout, lr_ratio: config.lr_ratio })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&LoraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    fn trained_bias(&self, site: &Site) -> Option<Tensor<1>> {
        self.biases.get(site.index)?.as_ref().map(Param::val)
    }
}

impl LoraLayer {
    fn new(config: &LoraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, restored, .. } = *context;
        let rank = config.rank_at(&site.path)?;
        let scaling = config.scaling(&site.path)?;
        let [d_in, d_out] = site.shape;
        if config.init == LoraInit::Pissa && rank > d_in.min(d_out) {
            let expected = format!("PiSSA needs a rank of at most {} at {site}", d_in.min(d_out));
            return Err(Error::config("r", rank, expected));
        }
        let parts = config.attn_matrices.columns(site);
        let shapes = match parts.len() {
            0 => [[d_in, rank], [rank, d_out]],
            n => [[d_in, n * rank], [rank, n * d_out / 3]],
        };
        let weight = || base.weight(site).dense();
        let [a, b] = match restored {
            true => shapes.map(|shape| Tensor::zeros(shape, device)),
            false => config.init.factors(shapes, scaling, weight, device),
        };
        let start = (config.init == LoraInit::Pissa)
            .then(|| [&a, &b].map(|t| Param::from_tensor(t.clone()).set_require_grad(false)));
        let magnitude = config.use_dora.then(|| {
            trained_copy(&weight().square().sum_dim(0).sqrt().squeeze_dim::<1>(0), device)
        });
        let (lora_a, lora_b) = (Param::from_tensor(a), Param::from_tensor(b));
        Ok(Self { lora_a, lora_b, parts, magnitude, start, restored, scaling })
    }

    fn edits(&self, dropout: f64) -> Edits {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        let factors = |a, b| LowRank::new(a, b, self.scaling).with_dropout(dropout);
        if !self.parts.is_empty() {
            let rank = b.dims()[0];
            let of = |(place, columns): (usize, &Range<usize>)| {
                let a = a.clone().narrow(1, place * rank, rank);
                let b = b.clone().narrow(1, place * columns.len(), columns.len());
                factors(a, b).of_columns(columns.clone()).into()
            };
            return self.parts.iter().enumerate().map(of).collect();
        }
        let edits = Edits::from(factors(a, b));
        if let Some([a, b]) = &self.start {
            let edits = edits.then(LowRank::new(a.val(), b.val(), -self.scaling));
            return match self.restored {
                true => edits,
                false => edits.without_inverse(
                    "the factors that it started from are those of a weight which is no longer there",
                ),
            };
        }
        match &self.magnitude {
            None => edits,
            Some(m) => {
                let key = MemoKey { of: m.id, name: "norms", site: None };
                edits.then(Magnitude { values: m.val(), key })
            }
        }
    }
}

impl Hooks for Lora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let bias = self.trained_bias(site).map(Edit::Bias);
        let factors = self.layer(site).map(|layer| layer.edits(self.dropout));
        bias.into_iter().collect::<Edits>().followed_by(factors.unwrap_or_default())
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.trained_bias(site).map(NormEdit::bias).unwrap_or_default()
    }
}

impl Method for Lora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            let adapted = layer.is_some();
            if let Some(layer) = layer {
                let key = |peft: &str, adapters: &str| {
                    Key::from(site.key(peft))
                        .adapters(format!("{}.loras.{{}}.{adapters}", site.path))
                };
                file.param(key("lora_A.weight", "lora_A"), &mut layer.lora_a, Layout::Transposed);
                file.param(key("lora_B.weight", "lora_B"), &mut layer.lora_b, Layout::Transposed);
                if let Some([a, b]) = &mut layer.start {
                    file.start(key("lora_A.weight", "lora_A"), a, Layout::Transposed);
                    file.start(key("lora_B.weight", "lora_B"), b, Layout::Transposed);
                }
                if let Some(magnitude) = &mut layer.magnitude {
                    let key = key("lora_magnitude_vector", "m.weight");
                    file.param(key.adapters_shape([site.d_out(), 1]), magnitude, Layout::AsIs);
                }
            }
            if let Some(bias) = self.biases.get_mut(site.index).and_then(Option::as_mut) {
                // HF PEFT wraps the layers that it adapts, and their biases' names with them.
                let name = if adapted { "base_layer.bias" } else { "bias" };
                file.param(site.key(name), bias, Layout::AsIs);
            }
        }
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        // Vectors learn as B does, as in the reference's optimizer.
        let names = ["lora_b", "magnitude", "bias", r"biases\.\d+"];
        let factors = self.lr_ratio.map(|ratio| names.map(|name| (name.to_string(), ratio)));
        factors.into_iter().flatten().collect()
    }
}
