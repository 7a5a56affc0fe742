//! LoKr: a Kronecker product.

mod config;

pub use config::{LokrConfig, LokrInit};

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Kronecker, Layout, Method, Pass, Result, Site,
};

use crate::start::{self, Dropped};

/// LoKr (Yeh et al. 2023, arXiv 2309.14859): `W' = W + (alpha / r) W₁ ⊗ W₂`, where either factor can be
/// a product of rank `r` itself.
///
/// ```text
/// d_in = m n    d_out = k l    m ≤ n, k ≤ l as near to one another as they divide
/// W₁: [m, k], or [m, r] [r, k] with decompose_both and r < max(m, k) / 2
/// W₂: [n, l], or [n, r] [r, l] where r < max(n, l) / 2
/// ```
///
/// Created with [`LokrConfig`].
#[derive(Module, Debug)]
pub struct Lokr {
    /// By [`Site::index`].
    layers: Vec<Option<LokrLayer>>,
    #[module(skip)]
    rank_dropout: f64,
    #[module(skip)]
    rank_dropout_scale: bool,
    #[module(skip)]
    module_dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct LokrLayer {
    /// `W₁`, `[m, k]`.
    pub first: KroneckerFactor,
    /// `W₂`, `[n, l]`.
    pub second: KroneckerFactor,
    #[module(skip)]
    scaling: f64,
}

/// A matrix `[inputs, outputs]`, or a product of that shape.
#[derive(Module, Debug)]
pub struct KroneckerFactor {
    /// The whole, or `[inputs, r]`.
    pub a: Param<Tensor<2>>,
    /// `[r, outputs]`, of a product.
    pub b: Option<Param<Tensor<2>>>,
}

impl Lokr {
    pub(crate) fn new(config: &LokrConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers = vec![None; context.base.len()];
        for site in config.sites(context.base)? {
            layers[site.index] = Some(LokrLayer::new(config, site, context)?);
        }
        let LokrConfig { rank_dropout, rank_dropout_scale, module_dropout, .. } = *config;
        Ok(Self { layers, rank_dropout, rank_dropout_scale, module_dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&LokrLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl LokrLayer {
    fn new(config: &LokrConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let [first, second] = config.factors_at(site)?;
        let factor = |shape: FactorShape, zero: Option<Zero>| {
            let FactorShape { inputs, outputs, rank } = shape;
            let part = |shape, is_zero: bool| start::kaiming_or_zero(!is_zero, shape, context);
            match rank {
                None => KroneckerFactor { a: part([inputs, outputs], zero.is_some()), b: None },
                Some(rank) => KroneckerFactor {
                    b: Some(part([rank, outputs], zero == Some(Zero::OnOutputs))),
                    a: part([inputs, rank], zero == Some(Zero::OnInputs)),
                },
            }
        };
        let (first_zero, second_zero) = match config.init {
            LokrInit::Zero => (Some(Zero::OnOutputs), None),
            LokrInit::Random => (None, None),
            LokrInit::Lycoris => (None, Some(Zero::OnInputs)),
        };
        Ok(Self {
            first: factor(first, first_zero),
            second: factor(second, second_zero),
            scaling: config.scaling(&site.path)?,
        })
    }
}

/// Which part of a product starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zero {
    OnInputs,
    OnOutputs,
}

/// The shape of a factor, and the rank of it as a product.
#[derive(Debug, Clone, Copy)]
struct FactorShape {
    inputs: usize,
    outputs: usize,
    rank: Option<usize>,
}

impl FactorShape {
    fn num_values(self) -> usize {
        match self.rank {
            None => self.inputs * self.outputs,
            Some(rank) => rank * (self.inputs + self.outputs),
        }
    }
}

impl KroneckerFactor {
    fn product(&self) -> Tensor<2> {
        match &self.b {
            Some(b) => self.a.val().matmul(b.val()),
            None => self.a.val(),
        }
    }

    fn rank(&self) -> usize {
        let [inputs, columns] = self.a.lazy_shape().dims();
        let outputs = self.b.as_ref().map_or(columns, |b| b.lazy_shape()[1]);
        inputs.min(columns).min(outputs)
    }

    fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site, name: &str) {
        let Self { a, b } = self;
        match b {
            None => file.param(site.key(name), a, Layout::Transposed),
            // The reference's `a` is on the side of the output.
            Some(b) => {
                file.param(site.key(&format!("{name}_a")), b, Layout::Transposed);
                file.param(site.key(&format!("{name}_b")), a, Layout::Transposed);
            }
        }
    }
}

impl Hooks for Lokr {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(layer) = self.layer(site) else { return Edits::none() };
        let dropped = Dropped {
            module: self.module_dropout,
            rank: self.rank_dropout,
            rank_is_scaled: self.rank_dropout_scale,
        };
        let columns = dropped.columns(site.d_out(), &layer.first.a.lazy_device(), pass);
        let rank = layer.first.rank() * layer.second.rank();
        let (first, second) = (layer.first.product(), layer.second.product());
        Kronecker::new(first, second, layer.scaling).of_rank(rank).with_outputs(columns).into()
    }
}

impl Method for Lokr {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                layer.first.exchange(file, site, "lokr_w1");
                layer.second.exchange(file, site, "lokr_w2");
            }
        }
    }
}
