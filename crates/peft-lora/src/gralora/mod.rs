//! GraLoRA: low ranks of the blocks of a weight.

mod config;

pub use config::GraloraConfig;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edits, Error, Exchange, Hooks, InitContext, Layout, LowRank, Method, NormEdit, Pass,
    Result, Site, TrainedBiases,
};

use crate::start;

/// GraLoRA (Jung et al. 2025, arXiv 2505.20355): the weight in `k` by `k` blocks, each of which has a low
/// rank of `r / k`, and beside them, where it is asked for, one of the whole weight.
///
/// ```text
/// block (n, j) of W' - W = s A[n][:, j] B[j][n, :]      s = alpha / (r + hybrid_r)
/// A: [k, d_in / k, r], its r columns in k groups        B: [k, r, d_out / k], its r rows in k groups
/// ```
///
/// It is one low rank of `k r` with zeros in its factors, and runs as such.
///
/// Created with [`GraloraConfig`].
#[derive(Module, Debug)]
pub struct Gralora {
    /// By [`Site::index`].
    layers: Vec<Option<GraloraLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct GraloraLayer {
    /// `A`, `[k, d_in / k, r]`.
    pub gralora_a: Param<Tensor<3>>,
    /// `B`, `[k, r, d_out / k]`.
    pub gralora_b: Param<Tensor<3>>,
    /// The factors of the whole weight, `[d_in, hybrid_r]` and `[hybrid_r, d_out]`.
    pub general: Option<[Param<Tensor<2>>; 2]>,
    #[module(skip)]
    scaling: f64,
}

impl Gralora {
    pub(crate) fn new(config: &GraloraConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(GraloraLayer::new(config, site, context)?);
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        Ok(Self { layers, biases, dropout: config.dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&GraloraLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl GraloraLayer {
    fn new(config: &GraloraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let GraloraConfig { rank, hybrid_r, blocks, .. } = *config;
        let [d_in, d_out] = site.shape;
        if !d_in.is_multiple_of(blocks) || !d_out.is_multiple_of(blocks) {
            let expected = format!("must divide both sides of {site}, [{d_in}, {d_out}]");
            return Err(Error::config("gralora_k", blocks, expected));
        }
        let a = [blocks, d_in / blocks, rank];
        let b = [blocks, rank, d_out / blocks];
        let general = |context| {
            let a = start::kaiming_factor([d_in, hybrid_r], context);
            [a, start::kaiming_or_zero(!config.init, [hybrid_r, d_out], context)]
        };
        Ok(Self {
            gralora_a: start::kaiming(a, d_in / blocks, context),
            gralora_b: match config.init {
                true => start::zeros(b, context),
                false => start::kaiming(b, rank, context),
            },
            general: (hybrid_r > 0).then(|| general(context)),
            scaling: config.scaling(),
        })
    }

    /// The blocks as one low rank: `A` of shape `[d_in, k r]`, whose columns are of one group of inputs
    /// each, and `B` of shape `[k r, d_out]`, whose rows are of one group of outputs each.
    fn blocks(&self) -> LowRank {
        let (a, b) = (self.gralora_a.val(), self.gralora_b.val());
        let ([k, inputs, rank], [_, _, outputs]) = (a.dims(), b.dims());
        let same = Tensor::<2>::eye(k, &a.device().without_autodiff());
        // Group of inputs, input, group again, column.
        let a = a.reshape([k, inputs, 1, rank]) * same.clone().reshape([k, 1, k, 1]);
        // Rows in the order of A's columns: group of inputs, group of outputs, one of the block's rank.
        let b = b.reshape([k, k, rank / k, 1, outputs]).swap_dims(0, 1);
        let b = b * same.reshape([1, k, 1, k, 1]);
        let a = a.reshape([k * inputs, k * rank]);
        LowRank::new(a, b.reshape([k * rank, k * outputs]), self.scaling)
    }

    fn edits(&self, dropout: f64) -> Edits {
        let edits = Edits::from(self.blocks().with_dropout(dropout));
        match &self.general {
            None => edits,
            Some([a, b]) => {
                edits.then(LowRank::new(a.val(), b.val(), self.scaling).with_dropout(dropout))
            }
        }
    }
}

impl Hooks for Gralora {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).map(|layer| layer.edits(self.dropout));
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Gralora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            if let Some(layer) = layer {
                file.param(site.key("gralora_A"), &mut layer.gralora_a, Layout::AsIs);
                file.param(site.key("gralora_B"), &mut layer.gralora_b, Layout::AsIs);
                if let Some([a, b]) = &mut layer.general {
                    file.param(site.key("gralora_A_general.weight"), a, Layout::Transposed);
                    file.param(site.key("gralora_B_general.weight"), b, Layout::Transposed);
                }
            }
            self.biases.exchange(file, site);
        }
    }
}
