//! The adapters of a model.

use burn::module::Module;
use burn::tensor::Tensor;
use peft_core::{
    Base, BoxedMethod, Error, Exchange, Hooks, InitContext, Insert, Intervention, LossContext,
    Method, NormEdit, Pass, Result, Role, Site, SiteKind, Stage, SublayerEnd, SublayerFunction,
    Tokens, TrainedNorm,
};

use crate::config::DEFAULT_INVERTIBLE_REDUCTION;
use crate::invertible::Coupling;
use crate::mixture;
use crate::phm::SharedPhm;
use crate::projection::{Projection, Shared};
use crate::sparse::Survivors;
use crate::{AdapterLayer, BottleneckConfig, ResidualBeforeNorm};

/// Bottleneck adapters: a narrow function at the end of sublayers,
/// `f(x) = act(x W_d + b_d) W_u + b_u`, with `W_d` of shape `[d, m]` and `W_u` of shape `[m, d]`.
///
/// A sublayer ends in `norm(r + o)`: `o` is what attention or the feed-forward network returns, `r`
/// the residual. An adapter replaces `o`:
///
/// | configuration | `o'` |
/// |---|---|
/// | Houlsby et al. 2019 (arXiv 1902.00751) | `o + s f(o)` |
/// | Pfeiffer et al. 2020 (arXiv 2005.00247): `original_ln_before` | `o + s f(norm(r + o))` |
/// | He et al. 2021 (arXiv 2110.04366): `is_parallel` | `o + s f(r)` |
///
/// With `original_ln_after = false` (Steitz and Roth 2024, arXiv 2406.06820) it replaces what leaves the
/// sublayer, `h = norm(r + o)`, by `h + s f(h)`.
///
/// With `num_experts` (AdaMix), a pass of training goes through one of several projections, a
/// [`Mixture`](crate::Mixture), and [`finish`](Method::finish) averages them. Pruned
/// ([`SparseAdapterConfig`](crate::SparseAdapterConfig)), few weights of all projections are left.
///
/// It cannot be merged: the function has a non-linearity. Created with [`BottleneckConfig`].
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// By [`Site::index`].
    layers: Vec<Option<AdapterLayer>>,
    /// Trained norms, by [`Site::index`].
    norms: Vec<Option<TrainedNorm>>,
    shared: Option<SharedPhm>,
    /// What pruning left of the projections.
    survivors: Option<Survivors>,
    invertible: Option<Coupling>,
    #[module(skip)]
    wiring: Wiring,
    /// Whether a language-model head is given the inverse of the invertible adapter.
    #[module(skip)]
    inverse: bool,
    /// The weight of the divergence between two passes with experts of their own.
    #[module(skip)]
    consistency_weight: f64,
    /// Whether there is another adapter below, whose embeddings then stay as they are.
    #[module(skip)]
    above_another: bool,
}

/// How adapters are connected.
#[derive(Debug, Clone, Copy)]
struct Wiring {
    parallel: bool,
    norm_first: bool,
    residual: ResidualBeforeNorm,
    residual_before_norm: bool,
    /// Whether it is given what leaves the sublayer, and adds to that.
    behind: bool,
}

impl Bottleneck {
    pub(crate) fn new(config: &BottleneckConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut layers: Vec<Option<AdapterLayer>> = vec![None; base.len()];
        let mut widths = Vec::new();
        for site in config.adapted_sites(base)? {
            let shape = [site.d_out(), config.bottleneck_at(site)?];
            config.check_phm(site, shape)?;
            layers[site.index] = Some(AdapterLayer::new(config, shape, context));
            widths.push((site, shape));
        }
        let shared = match widths.first() {
            Some((_, first)) => {
                let other = widths.iter().find(|(_, shape)| shape != first);
                if let (true, true, Some((site, shape))) =
                    (config.phm_layer, config.shared_w_phm, other)
                {
                    return Err(Error::config(
                        "shared_W_phm",
                        true,
                        format!(
                            "the layers must have one shape: {shape:?} at {site}, {first:?} before"
                        ),
                    ));
                }
                SharedPhm::new(config, *first, context)
            }
            None => None,
        };

        let adapted = |layer: usize| widths.iter().any(|(site, _)| site.layer == Some(layer));
        let mut norms = vec![None; base.len()];
        for entry in base.iter().filter(|entry| entry.site.kind == SiteKind::Norm) {
            if config.train_norms && entry.site.layer.is_some_and(adapted) {
                norms[entry.site.index] = TrainedNorm::copied(entry, device);
            }
        }

        let invertible = match config.inv_adapter {
            None => None,
            Some(kind) => {
                let d = config.embeddings(base)?.d_out();
                let reduction = config.inv_adapter_reduction_factor;
                let reduction = reduction.unwrap_or(DEFAULT_INVERTIBLE_REDUCTION);
                Some(Coupling::new(kind, d, reduction, config.non_linearity, context))
            }
        };
        let wiring = Wiring {
            parallel: config.is_parallel,
            norm_first: config.original_ln_before,
            residual: config.residual_before_ln,
            residual_before_norm: config.adapter_residual_before_ln,
            behind: !config.original_ln_after,
        };
        let BottleneckConfig { inverse, consistency_weight, .. } = *config;
        Ok(Self {
            layers,
            norms,
            shared,
            survivors: None,
            invertible,
            wiring,
            inverse,
            consistency_weight,
            above_another: false,
        })
    }

    /// The adapter at a site, if there is one.
    pub fn layer(&self, site: &Site) -> Option<&AdapterLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    /// The trained norm at a site, if there is one.
    pub fn trained_norm(&self, site: &Site) -> Option<&TrainedNorm> {
        self.norms.get(site.index)?.as_ref()
    }

    /// The invertible adapter at the embeddings, if there is one.
    pub fn invertible(&self) -> Option<&Coupling> {
        self.invertible.as_ref()
    }

    /// `s f(x)` of the adapter at a site for `x` of shape `[tokens, d]`, before residual connection
    /// and `ln_after`; `None` where there is no adapter.
    pub fn update(&self, site: &Site, input: Tensor<2>, pass: &Pass<'_>) -> Option<Tensor<2>> {
        Some(self.layer(site)?.update(input, self.of_all(), pass))
    }

    fn of_all(&self) -> Shared<'_> {
        Shared { phm: self.shared.as_ref(), survivors: self.survivors.as_ref() }
    }

    /// The projections, down and up, one adapter after another.
    pub(crate) fn projections(&mut self) -> impl Iterator<Item = &mut Projection> {
        self.layers.iter_mut().flatten().flat_map(|layer| [&mut layer.down, &mut layer.up])
    }

    /// With what pruning left in the place of dense weights, which [`Projection::Sparse`] point to.
    pub(crate) fn set_survivors(&mut self, survivors: Survivors) {
        self.survivors = Some(survivors);
    }

    /// What pruning left of the projections, of a sparse adapter.
    pub fn survivors(&self) -> Option<&Survivors> {
        self.survivors.as_ref()
    }

    fn has_experts(&self) -> bool {
        let is_mixture = |projection: &Projection| matches!(projection, Projection::Mixture(_));
        self.layers.iter().flatten().any(|layer| is_mixture(&layer.down) || is_mixture(&layer.up))
    }
}

/// An adapter at the end of a sublayer.
#[derive(Debug)]
struct Wired<'a> {
    adapter: &'a AdapterLayer,
    shared: Shared<'a>,
    wiring: Wiring,
}

impl SublayerFunction for Wired<'_> {
    fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.adapter.update(self.reads(end, pass), self.shared, pass)
    }

    fn residual(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self.wiring.residual {
            _ if self.wiring.parallel => end.output.clone(),
            ResidualBeforeNorm::Output => end.output.clone(),
            ResidualBeforeNorm::Input => self.reads(end, pass),
            ResidualBeforeNorm::PostAdd => end.output.clone() + end.residual.clone(),
        }
    }

    fn join(&self, update: Tensor<2>, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let Wiring { parallel, residual_before_norm, .. } = self.wiring;
        let residual = self.residual(end, pass);
        self.adapter.join(update, residual, residual_before_norm && !parallel)
    }

    fn reads(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self.wiring {
            Wiring { parallel: true, .. } => end.residual.clone(),
            Wiring { norm_first: true, .. } => end.normalized(pass),
            _ => end.output.clone(),
        }
    }
}

impl Intervention for Wired<'_> {
    fn forward(&self, states: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let update = self.adapter.update(states.clone(), self.shared, pass);
        self.adapter.join(update, states, self.wiring.residual_before_norm)
    }
}

impl Hooks for Bottleneck {
    fn sublayer<'a>(&'a self, site: &Site, _pass: &Pass<'_>) -> Insert<'a> {
        let (shared, wiring) = (self.of_all(), self.wiring);
        match self.layer(site) {
            Some(adapter) if wiring.behind => Insert::behind(Wired { adapter, shared, wiring }),
            Some(adapter) => Insert::of(Wired { adapter, shared, wiring }),
            None => Insert::None,
        }
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.trained_norm(site).map(TrainedNorm::edit).unwrap_or_default()
    }

    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        let coupling = self.invertible.as_ref().filter(|_| !self.above_another);
        match (stage, coupling) {
            // A decoder's embeddings beside those of an encoder stay as they are.
            (Stage::Input, Some(coupling)) if site.role != Role::DecoderEmbeddings => {
                Tokens { hidden: coupling.forward(tokens.hidden), ..tokens }
            }
            (Stage::Output, Some(coupling)) if self.inverse => {
                Tokens { hidden: coupling.inverse(tokens.hidden), ..tokens }
            }
            _ => tokens,
        }
    }
}

impl Method for Bottleneck {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(Some(layer)) = self.layers.get_mut(site.index) {
                layer.exchange(file, site);
            }
            if let Some(Some(norm)) = self.norms.get_mut(site.index) {
                norm.exchange(file, site, "");
            }
        }
        let prefix = base.model_prefix();
        if let Some(shared) = &mut self.shared {
            shared.exchange(file, prefix);
        }
        if let Some(survivors) = &mut self.survivors {
            survivors.exchange(file);
        }
        if let Some(coupling) = &mut self.invertible {
            let encoder = if base.is_encoder_decoder() { "encoder." } else { "" };
            coupling.exchange(file, &format!("{prefix}{encoder}"));
        }
    }

    fn adopt(&mut self, below: Vec<BoxedMethod>) -> Vec<BoxedMethod> {
        // As in adapter-hub/adapters, the invertible adapter of the first one alone acts.
        self.above_another |= !below.is_empty();
        below
    }

    /// AdaMix: the divergence between the two passes.
    fn loss(&self, context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        if self.consistency_weight == 0.0 || !self.has_experts() {
            return Ok(None);
        }
        let divergence = mixture::divergence((context.logits)(), (context.again)()?);
        Ok(Some(divergence * self.consistency_weight))
    }

    fn finish(&mut self) {
        self.projections().for_each(Projection::finish);
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it adds a function with a non-linearity to the sublayers".into())
    }
}
