//! VB-LoRA: factors mixed from a bank of vectors that all layers share.

mod config;
mod mixture;

pub use config::VbloraConfig;
pub use mixture::Mixture;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Layout, LowRank, MemoKey, Method, NormEdit, Pass,
    Result, Site, TrainedBiases,
};

/// VB-LoRA (Li et al. 2024, arXiv 2405.15179): `W' = W + A B`, where `A` and `B` consist of pieces of `b`
/// values, and each piece is a mixture of `k` of the `h` vectors of one bank, those of its largest logits.
///
/// ```text
/// piece = Σ over the k largest of l:  softmax(those k)_i v_i     v: [h, b], of all layers
/// A: [d_in, r], of logits [r, d_in / b, h]      B: [r, d_out], of logits [d_out / b, r, h]
/// ```
///
/// Created with [`VbloraConfig`].
#[derive(Module, Debug)]
pub struct Vblora {
    /// The bank, `[h, b]`.
    pub vector_bank: Param<Tensor<2>>,
    /// By [`Site::index`].
    layers: Vec<Option<VbloraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    topk: usize,
    #[module(skip)]
    only_topk: bool,
    #[module(skip)]
    dropout: f64,
}

/// The mixtures at one site.
#[derive(Module, Debug)]
pub struct VbloraLayer {
    /// Of `A`: logits `[r, d_in / b, h]`.
    pub logits_a: Mixture,
    /// Of `B`: logits `[d_out / b, r, h]`.
    pub logits_b: Mixture,
}

impl Vblora {
    pub(crate) fn new(config: &VbloraConfig, context: &InitContext<'_>) -> Result<Self> {
        let base = context.base;
        let (rank, vectors) = (config.rank, config.num_vectors);
        let bound = config.init_vector_bank_bound;
        let bank =
            context.random([vectors, config.vector_length], Distribution::Uniform(-bound, bound));
        let mixture = |shape| Mixture::new(shape, config.init_logits_std, context);
        let mut layers = vec![None; base.len()];
        for site in config.sites(base)? {
            let [of_input, of_output] =
                [config.pieces(site.d_in(), site)?, config.pieces(site.d_out(), site)?];
            let logits_a = mixture([rank, of_input, vectors]);
            let logits_b = mixture([of_output, rank, vectors]);
            layers[site.index] = Some(VbloraLayer { logits_a, logits_b });
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        let (topk, only_topk) = (config.topk, config.save_only_topk_weights);
        let vector_bank = Param::from_tensor(bank);
        Ok(Self { vector_bank, layers, biases, topk, only_topk, dropout: config.dropout })
    }

    /// The mixtures at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&VbloraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    /// `A`, `[d_in, r]`, and `B`, `[r, d_out]`.
    fn factors(&self, layer: &VbloraLayer, site: &Site) -> [Tensor<2>; 2] {
        let bank = self.vector_bank.val();
        let [d_in, d_out] = site.shape;
        let a = layer.logits_a.pieces(&bank, self.topk);
        let [rank, ..] = a.dims();
        let b = layer.logits_b.pieces(&bank, self.topk);
        [a.reshape([rank, d_in]).transpose(), b.swap_dims(0, 1).reshape([rank, d_out])]
    }
}

impl Hooks for Vblora {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).map(|layer| {
            let key = MemoKey { of: layer.logits_a.id(), name: "factors", site: None };
            let [a, b] = pass.memo.get(key, || self.factors(layer, site));
            Edits::from(LowRank::new(a, b, 1.0).with_dropout(self.dropout))
        });
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Vblora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        file.param("base_model.vblora_vector_bank", &mut self.vector_bank, Layout::AsIs);
        let only = self.only_topk.then_some(self.topk);
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(VbloraLayer { logits_a, logits_b }) = layer {
                logits_a.exchange(file, &site.key("vblora_logits_A"), only);
                logits_b.exchange(file, &site.key("vblora_logits_B"), only);
            }
            self.biases.exchange(file, site);
        }
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        // As in the paper, where the bank learns at 1e-3 and the logits at 1e-2.
        vec![("vector_bank".into(), 0.1)]
    }
}
