//! (IA)³: learned scales.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    AttentionMatrices, AttentionMatrix, Base, Edit, Edits, Exchange, Hooks, InitContext, Key,
    Layout, Method, Pass, Result, Scale, Site,
};

use crate::Ia3Config;

/// (IA)³ (Liu et al. 2022, arXiv 2205.05638): a learned scale `l` for each output of a linear
/// layer, or for each input of a feed-forward one.
///
/// ```text
/// y = (x W + b) ⊙ l        W' = W diag(l), b' = b ⊙ l    l: [d_out]
/// y = (x ⊙ l) W + b        W' = diag(l) W, b' = b        l: [d_in], a feed-forward layer
/// ```
///
/// With `alpha`, `alpha l` stands for `l`.
///
/// Created with [`Ia3Config`].
#[derive(Module, Debug)]
pub struct Ia3 {
    /// By [`Site::index`].
    layers: Vec<Option<Ia3Layer>>,
}

/// The scale at one site.
#[derive(Module, Debug)]
pub struct Ia3Layer {
    /// `l`, `[d_out]`, or `[d_in]` of a feed-forward layer; where parts of a fused projection are
    /// scaled, theirs side by side.
    pub scale: Param<Tensor<1>>,
    /// Whether the input is scaled.
    #[module(skip)]
    of_input: bool,
    /// The columns of each part of a fused projection; none for the whole.
    #[module(skip)]
    parts: Vec<Range<usize>>,
    /// The columns of its other parts, which `alpha` alone scales.
    #[module(skip)]
    others: Vec<Range<usize>>,
    #[module(skip)]
    alpha: f64,
}

impl Ia3 {
    pub(crate) fn new(config: &Ia3Config, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for (site, of_input) in config.layers(base)? {
            let parts = if of_input { Vec::new() } else { config.attn_matrices.columns(site) };
            let width = match (of_input, parts.is_empty()) {
                (true, _) => site.d_in(),
                (false, true) => site.d_out(),
                (false, false) => parts.iter().map(ExactSizeIterator::len).sum(),
            };
            let scale = if config.init {
                Tensor::ones([width], device)
            } else {
                context.random([width], Distribution::Normal(0.0, 1.0))
            };
            let scale = Param::from_tensor(scale);
            let alpha = config.alpha;
            let all: AttentionMatrices = AttentionMatrix::ALL.into_iter().collect();
            let mut others = all.columns(site);
            others.retain(|columns| alpha != 1.0 && !parts.is_empty() && !parts.contains(columns));
            layers[site.index] = Some(Ia3Layer { scale, of_input, parts, others, alpha });
        }
        Ok(Self { layers })
    }

    /// The scale at a site, if it has one.
    pub fn layer(&self, site: &Site) -> Option<&Ia3Layer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl Ia3Layer {
    fn edits(&self) -> Edits {
        let scale = match self.alpha {
            1.0 => self.scale.val(),
            alpha => self.scale.val() * alpha,
        };
        if self.of_input {
            return Scale::input(scale).into();
        }
        if self.parts.is_empty() {
            return Scale::output(scale).into();
        }
        let of = |(place, columns): (usize, &Range<usize>)| {
            let scale = scale.clone().narrow(0, place * columns.len(), columns.len());
            Scale::output(scale).of_columns(columns.clone())
        };
        let others = self.others.iter().map(|columns| {
            let factor = Tensor::full([columns.len()], self.alpha, &scale.device());
            Scale::output(factor).of_columns(columns.clone())
        });
        self.parts.iter().enumerate().map(of).chain(others).map(Edit::from).collect()
    }
}

impl Hooks for Ia3 {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        self.layer(site).map(Ia3Layer::edits).unwrap_or_default()
    }
}

impl Method for Ia3 {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let width = layer.scale.lazy_shape().num_elements();
            let shape = if layer.of_input { [1, width] } else { [width, 1] };
            let key = Key::from(site.key("ia3_l"))
                .adapters(format!("{}.loras.{{}}.lora_B", site.path))
                .peft_shape(shape)
                .adapters_shape(shape);
            file.param(key, &mut layer.scale, Layout::AsIs);
        }
    }
}
