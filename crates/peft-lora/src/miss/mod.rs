//! MiSS: one block that all groups of inputs share.

mod config;

pub use config::{MissConfig, MissInit};

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edit, Edits, Error, Exchange, Hooks, InitContext, Layout, LowRank, Method, NormEdit,
    Pass, Result, Site, TrainedBiases, WeightMap,
};

use crate::start;

/// MiSS (Kang and Yin 2024, arXiv 2409.15371): `W' = W + G D`, where row `i` of `G`, `[d_in, r]`, has a
/// one in column `i mod r`: the inputs are summed in `r` classes, and `D`, `[r, d_out]`, is trained.
///
/// ```text
/// mini:  D = [C C ... C]        C: [r, mini_r]
/// bat:   W' = W + W D + D       of blocks of r inputs by r outputs, of which those of one group of outputs
///                               have the same D: [d_out / r, r, r]
/// ```
///
/// Created with [`MissConfig`].
#[derive(Module, Debug)]
pub struct Miss {
    /// By [`Site::index`].
    layers: Vec<Option<MissLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    dropout: f64,
}

/// The block at one site.
#[derive(Module, Debug)]
pub enum MissLayer {
    /// `D`, `[r, d_out]`, or `C`, `[r, mini_r]`.
    Shared(Param<Tensor<2>>),
    /// `D`, `[d_out / r, r, r]`.
    Blocks(Param<Tensor<3>>),
}

impl Miss {
    pub(crate) fn new(config: &MissConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(MissLayer::new(config, site, context)?);
        }
        let biases = config.bias.copies(context, |index| layers[index].is_some());
        Ok(Self { layers, biases, dropout: config.dropout })
    }

    /// The block at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&MissLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl MissLayer {
    fn new(config: &MissConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let (rank, mini, [d_in, d_out]) = (config.rank, config.mini_r, site.shape);
        if rank > d_in {
            let expected = format!("must be at most {d_in}, the number of inputs of {site}");
            return Err(Error::config("r", rank, expected));
        }
        Ok(match config.init {
            MissInit::Zero => Self::Shared(start::zeros([rank, d_out], context)),
            // The fan-in that PyTorch takes of a matrix [r, d_out].
            MissInit::Random => Self::Shared(start::kaiming([rank, d_out], d_out, context)),
            MissInit::Mini if d_out.is_multiple_of(mini) => {
                Self::Shared(start::zeros([rank, mini], context))
            }
            MissInit::Mini => {
                let expected = format!("must divide {d_out}, the number of outputs of {site}");
                return Err(Error::config("mini_r", mini, expected));
            }
            MissInit::Bat if d_in.is_multiple_of(rank) && d_out.is_multiple_of(rank) => {
                Self::Blocks(start::zeros([d_out / rank, rank, rank], context))
            }
            MissInit::Bat => {
                let expected = format!(
                    "must divide both sides of {site}, [{d_in}, {d_out}], for init_weights = \"bat\""
                );
                return Err(Error::config("r", rank, expected));
            }
        })
    }

    fn edit(&self, site: &Site, dropout: f64) -> Edit {
        let [d_in, d_out] = site.shape;
        match self {
            Self::Blocks(blocks) => Edit::Weight(Arc::new(Blocks(blocks.val()))),
            Self::Shared(block) => {
                let block = block.val();
                let device = block.device().without_autodiff();
                let [rank, width] = block.dims();
                let ones = |size: usize| Tensor::<2>::eye(size, &device);
                let classes = ones(rank).repeat(&[d_in.div_ceil(rank), 1]).narrow(0, 0, d_in);
                let copies = d_out / width;
                let factors = match width < rank {
                    // The narrower side is the rank of the change.
                    true => {
                        LowRank::new(classes.matmul(block), ones(width).repeat(&[1, copies]), 1.0)
                    }
                    false => LowRank::new(classes, block.repeat(&[1, copies]), 1.0),
                };
                factors.with_dropout(dropout).into()
            }
        }
    }
}

/// `W + W D + D`, block by block.
#[derive(Debug)]
struct Blocks(Tensor<3>);

impl WeightMap for Blocks {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        let weight = weight();
        let ([d_in, d_out], [outputs, rank, _]) = (weight.dims(), self.0.dims());
        // Groups of inputs, of outputs, outputs of a group, inputs of a group.
        let blocks = weight.clone().reshape([d_in / rank, rank, outputs, rank]);
        let blocks = blocks.permute([0, 2, 3, 1]);
        let of_outputs = self.0.clone().unsqueeze_dim::<4>(0);
        let change = blocks.matmul(of_outputs.clone()) + of_outputs;
        weight + change.permute([0, 3, 1, 2]).reshape([d_in, d_out])
    }
}

impl Hooks for Miss {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let own = self.layer(site).map(|layer| layer.edit(site, self.dropout));
        self.biases.below(site, own.map(Edits::from))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Miss {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            match layer {
                Some(MissLayer::Shared(block)) => {
                    file.param(site.key("miss_block"), block, Layout::AsIs);
                }
                Some(MissLayer::Blocks(blocks)) => {
                    file.param(site.key("miss_block"), blocks, Layout::AsIs);
                }
                None => {}
            }
            self.biases.exchange(file, site);
        }
    }
}
