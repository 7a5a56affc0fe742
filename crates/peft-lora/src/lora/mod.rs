//! LoRA, rsLoRA, DoRA and PiSSA: the same two factors at a layer.

mod adapters_format;
mod config;
mod decompose;
mod frozen_a;
mod init;
mod invocation;
mod layer;
mod presets;
mod starts;

pub use config::LoraConfig;
pub use init::LoraInit;
pub use layer::LoraLayer;
pub use presets::presets;
pub use starts::{
    CordaConfig, CordaMethod, EvaConfig, LoftqConfig, LoraGaConfig, LoraGaDirection, LoraGaScale,
};

use burn::module::Module;
use burn::optim::GradientsParams;
use peft_core::{
    Base, Edit, Edits, Error, Exchange, Hooks, InitContext, Key, Layout, LowRank, Method, NormEdit,
    Pass, Result, Site, SiteKind, TableEdit, TrainedBiases,
};

/// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `W' = W + s A B`, with `A` of shape
/// `[d_in, r]` and `B` of shape `[r, d_out]`.
///
/// It runs in factored form, `x W + b + s (x A) B`: no `[d_in, d_out]` gradient is ever formed.
///
/// Activated (`alora_invocation_tokens`; Greenewald et al. 2025, arXiv 2504.12397), it acts on the tokens
/// from the last occurrence of its invocation on, and on no other: what is kept of the tokens before it is
/// the base's.
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

impl Lora {
    pub(crate) fn new(config: &LoraConfig, context: &InitContext<'_>) -> Result<Self> {
        let base = context.base;
        let mut layers = vec![None; base.len()];
        let (config, mut factors) = starts::from_data(config, &config.sites(base)?, context)?;
        for site in config.sites(base)? {
            let factors = factors.remove(&site.index);
            layers[site.index] = Some(LoraLayer::new(&config, site, factors, context)?);
        }
        let mut follows = vec![None; base.len()];
        if config.ensure_weight_tying {
            for site in base.sites() {
                follows[site.index] = site.tied_to.filter(|&table| layers[table].is_some());
            }
        }
        if let (Some(tokens), true) = (&config.alora_invocation_tokens, base.is_encoder_decoder()) {
            let expected = "is for a model of one text, and this one has an encoder and a decoder";
            return Err(Error::config("alora_invocation_tokens", format!("{tokens:?}"), expected));
        }
        if config.use_dora && follows.iter().any(Option::is_some) {
            let expected = "cannot be combined with use_dora: the norms of an embedding are of its \
                            columns, which are the rows of the head";
            return Err(Error::config("ensure_weight_tying", true, expected));
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

impl Hooks for Lora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).map(|layer| layer.edits(self.dropout));
        if self.layer(site).is_some_and(|layer| layer.rounded.is_some()) {
            // In the place of the weight there is nothing below.
            let bias: Edits = self.biases.at(site).map(Edit::Bias).into_iter().collect();
            return own.unwrap_or_default().followed_by(bias);
        }
        let factors = self.followed(site).or(own);
        self.biases.below(site, factors)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }

    fn table(&self, site: &Site, _pass: &Pass<'_>) -> TableEdit {
        match self.layer(site) {
            Some(layer) if site.kind == SiteKind::Embedding => layer.table(),
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
                    if let Some(magnitude) = &mut layer.magnitude {
                        file.param(site.key("lora_magnitude_vector"), magnitude, Layout::AsIs);
                    }
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
