//! LoRA, rsLoRA, DoRA and PiSSA: the same two factors at a layer.

mod adapters_format;
mod config;
mod frozen_a;
mod init;
mod presets;

pub use config::LoraConfig;
pub use init::LoraInit;
pub use presets::presets;

use std::ops::Range;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Error, Exchange, Hooks, InitContext, Key, Layout, LowRank, Magnitude, MemoKey,
    Method, NormEdit, Pass, Result, Site, SiteKind, TableEdit, TrainedBiases, trained_copy,
};

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
    /// By [`Site::index`] of a head: the embedding whose factors it has, turned round.
    #[module(skip)]
    follows: Vec<Option<usize>>,
    biases: TrainedBiases,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    lr_ratio: Option<f64>,
    #[module(skip)]
    fa: bool,
}

/// The factors at one site: `A` is `[entries, r]` and `B` `[r, d]` at an embedding. Where `n` parts of a fused projection are adapted on their own, theirs
/// are side by side: `A` is `[d_in, n r]`, `B` is `[r, n d_out / 3]`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// `c`, `[d_out]`, a bias of the factors (HF PEFT's `lora_bias`).
    pub bias: Option<Param<Tensor<1>>>,
    /// The columns of each part of a fused projection; none for the whole.
    #[module(skip)]
    parts: Vec<Range<usize>>,
    /// DoRA's magnitude `m`, `[d_out]`.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// `A₀` and `B₀`, that PiSSA or OLoRA started from.
    start: Option<[Param<Tensor<2>>; 2]>,
    /// Whether it is the saved one.
    #[module(skip)]
    restored: bool,
    #[module(skip)]
    scaling: f64,
    /// Of LoRA-FA, made at the first step.
    #[module(skip)]
    inverse: Option<Tensor<3>>,
}

impl Lora {
    pub(crate) fn new(config: &LoraConfig, context: &InitContext<'_>) -> Result<Self> {
        let base = context.base;
        let mut layers = vec![None; base.len()];
        for site in config.sites(base)? {
            layers[site.index] = Some(LoraLayer::new(config, site, context)?);
        }
        let mut follows = vec![None; base.len()];
        if config.ensure_weight_tying {
            for site in base.sites() {
                follows[site.index] = site.tied_to.filter(|&table| layers[table].is_some());
            }
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        let (dropout, lr_ratio, fa) = (config.dropout, config.lr_ratio, config.lora_fa);
        Ok(Self { layers, follows, biases, dropout, lr_ratio, fa })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&LoraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    /// The factors of a head that has those of the embedding: `x (s A B)ᵀ = s (x Bᵀ) Aᵀ`.
    fn followed(&self, site: &Site) -> Option<Edits> {
        let embedding = self.follows.get(site.index).copied().flatten()?;
        let layer = self.layers[embedding].as_ref()?;
        let [a, b] = [&layer.lora_a, &layer.lora_b].map(|factor| factor.val().transpose());
        Some(LowRank::new(b, a, layer.scaling).into())
    }
}

impl LoraLayer {
    fn new(config: &LoraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, restored, .. } = *context;
        let rank = config.rank_at(&site.path)?;
        let scaling = config.scaling(&site.path)?;
        let [d_in, d_out] = site.shape;
        if site.kind == SiteKind::Embedding {
            return Self::of_table(config, site, context);
        }
        if config.init.keeps_start() && rank > d_in.min(d_out) {
            let most = d_in.min(d_out);
            let expected =
                format!("must be at most {most} at {site} where it starts from the weight");
            return Err(Error::config("r", rank, expected));
        }
        if config.init == LoraInit::Eva && context.calibration.is_some() {
            let expected =
                "an adapter that began so is read; a new one cannot start from data here";
            return Err(Error::config("init_lora_weights", "\"eva\"", expected));
        }
        let parts = config.attn_matrices.columns(site);
        let shapes = match parts.len() {
            0 => [[d_in, rank], [rank, d_out]],
            n => [[d_in, n * rank], [rank, n * d_out / 3]],
        };
        let weight = || base.weight(site).dense();
        let read = context.is_read() && !config.init.keeps_start();
        let [a, b] = match restored || read {
            true => shapes.map(|shape| Tensor::zeros(shape, device)),
            false => config.init.factors(shapes, scaling, weight, context),
        };
        let start = (config.init.keeps_start())
            .then(|| [&a, &b].map(|t| Param::from_tensor(t.clone()).set_require_grad(false)));
        let magnitude = config.use_dora.then(|| {
            trained_copy(&weight().square().sum_dim(0).sqrt().squeeze_dim::<1>(0), device)
        });
        let bias =
            config.lora_bias.then(|| Param::from_tensor(Tensor::zeros([shapes[1][1]], device)));
        let lora_a = Param::from_tensor(a).set_require_grad(!config.lora_fa);
        let (lora_b, inverse) = (Param::from_tensor(b), None);
        Ok(Self { lora_a, lora_b, bias, parts, magnitude, start, restored, scaling, inverse })
    }

    /// The factors of an embedding, which start as HF PEFT's: `A = 0`, `B ~ N(0, 1)`.
    fn of_table(config: &LoraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let unsupported = [
            ("use_dora", config.use_dora),
            ("lora_bias", config.lora_bias),
            ("lora_fa", config.lora_fa),
            ("init_lora_weights", config.init.keeps_start()),
        ];
        if let Some((field, _)) = unsupported.into_iter().find(|(_, is_set)| *is_set) {
            let expected = format!("is for linear layers, and {site} is an embedding");
            return Err(Error::config(field, "(given)", expected));
        }
        let (rank, scaling) = (config.rank_at(&site.path)?, config.scaling(&site.path)?);
        let ([entries, d], device) = (site.shape, context.device);
        let normal = |shape: [usize; 2]| {
            Param::from_tensor(context.random(shape, Distribution::Normal(0.0, 1.0)))
        };
        let lora_a = match config.init {
            LoraInit::Random => normal([entries, rank]),
            _ => Param::from_tensor(Tensor::zeros([entries, rank], device)),
        };
        let (bias, magnitude, start) = (None, None, None);
        let (parts, restored) = (Vec::new(), context.restored);
        let (lora_b, inverse) = (normal([rank, d]), None);
        Ok(Self { lora_a, lora_b, bias, parts, magnitude, start, restored, scaling, inverse })
    }

    fn factors(&self) -> LowRank {
        LowRank::new(self.lora_a.val(), self.lora_b.val(), self.scaling)
    }

    fn edits(&self, dropout: f64) -> Edits {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        let factors = |a, b| {
            let bias = self.bias.as_ref().map(Param::val);
            LowRank::new(a, b, self.scaling).with_dropout(dropout).with_bias(bias)
        };
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
        let own = self.layer(site).map(|layer| layer.edits(self.dropout));
        let factors = self.followed(site).or(own);
        self.biases.below(site, factors)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }

    fn table(&self, site: &Site, _pass: &Pass<'_>) -> TableEdit {
        match self.layer(site) {
            Some(layer) if site.kind == SiteKind::Embedding => {
                TableEdit::LowRank(Box::new(layer.factors()))
            }
            _ => TableEdit::Keep,
        }
    }
}

impl Method for Lora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.follows[site.index].and_then(|i| self.layers[i].as_mut()) {
                file.repeated(site.key("lora_A.weight"), &mut layer.lora_b, Layout::AsIs);
                file.repeated(site.key("lora_B.weight"), &mut layer.lora_a, Layout::AsIs);
            }
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                if site.kind == SiteKind::Embedding {
                    let [a, b] =
                        ["lora_embedding_A", "lora_embedding_B"].map(|name| site.key(name));
                    file.param(a, &mut layer.lora_a, Layout::Transposed);
                    file.param(b, &mut layer.lora_b, Layout::Transposed);
                    continue;
                }
                let key = |peft: &str, adapters: &str| {
                    Key::from(site.key(peft))
                        .adapters(format!("{}.loras.{{}}.{adapters}", site.path))
                };
                file.param(key("lora_A.weight", "lora_A"), &mut layer.lora_a, Layout::Transposed);
                file.param(key("lora_B.weight", "lora_B"), &mut layer.lora_b, Layout::Transposed);
                if let Some(bias) = &mut layer.bias {
                    file.param(site.key("lora_B.bias"), bias, Layout::AsIs);
                }
                if let Some([a, b]) = &mut layer.start {
                    file.start(key("lora_A.weight", "lora_A"), a, Layout::Transposed);
                    file.start(key("lora_B.weight", "lora_B"), b, Layout::Transposed);
                }
                if let Some(magnitude) = &mut layer.magnitude {
                    let key = key("lora_magnitude_vector", "m.weight");
                    file.param(key.adapters_shape([site.d_out(), 1]), magnitude, Layout::AsIs);
                }
            }
            self.biases.exchange(file, site);
        }
    }

    fn precondition(&mut self, gradients: &mut GradientsParams) {
        if self.fa {
            self.layers.iter_mut().flatten().for_each(|layer| layer.precondition(gradients));
        }
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        // Vectors learn as B does, as in the reference's optimizer.
        let names = ["lora_b", "magnitude", "bias", r"biases\.values\.\d+"];
        let factors = self.lr_ratio.map(|ratio| names.map(|name| (name.to_string(), ratio)));
        factors.into_iter().flatten().collect()
    }
}
