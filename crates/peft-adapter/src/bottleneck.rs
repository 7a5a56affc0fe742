//! The adapters of a model.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use peft_core::{
    Base, Change, Embedded, Error, Exchange, Hooks, Method, NormLayer, ResidualLayer,
    ResidualStates, Result, Role, Site, SiteKind,
};

use crate::config::DEFAULT_INVERTIBLE_REDUCTION;
use crate::invertible::Coupling;
use crate::norm::TrainedNorm;
use crate::phm::SharedPhm;
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
/// It cannot be merged: the function has a non-linearity. Created with [`BottleneckConfig`].
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// By [`Site::index`].
    layers: Vec<Option<AdapterLayer>>,
    /// Trained norms, by [`Site::index`].
    norms: Vec<Option<TrainedNorm>>,
    shared: Option<SharedPhm>,
    invertible: Option<Coupling>,
    /// The transformer layer of each site.
    #[module(skip)]
    layer_of: Vec<Option<usize>>,
    #[module(skip)]
    wiring: Wiring,
}

/// How adapters are connected.
#[derive(Debug, Clone, Copy)]
struct Wiring {
    parallel: bool,
    norm_first: bool,
    residual: ResidualBeforeNorm,
    residual_before_norm: bool,
}

impl Bottleneck {
    pub(crate) fn new(config: &BottleneckConfig, base: &Base, device: &Device) -> Result<Self> {
        let mut layers: Vec<Option<AdapterLayer>> = vec![None; base.len()];
        let mut widths = Vec::new();
        for site in config.adapted_sites(base)? {
            let shape = [site.d_out(), config.bottleneck_at(site)?];
            config.check_phm(site, shape)?;
            layers[site.index] = Some(AdapterLayer::new(config, shape, device));
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
                SharedPhm::new(config, *first, device)
            }
            None => None,
        };

        let mut layer_of = vec![None; base.len()];
        for site in base.sites() {
            layer_of[site.index] = site.layer;
        }
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
                Some(Coupling::new(kind, d, reduction, config.non_linearity, device))
            }
        };
        let wiring = Wiring {
            parallel: config.is_parallel,
            norm_first: config.original_ln_before,
            residual: config.residual_before_ln,
            residual_before_norm: config.adapter_residual_before_ln,
        };
        Ok(Self { layers, norms, shared, invertible, layer_of, wiring })
    }

    /// The adapter at a site, if there is one.
    pub fn layer(&self, site: &Site) -> Option<&AdapterLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    /// The trained norm at a site, if there is one.
    pub fn norm(&self, site: &Site) -> Option<&TrainedNorm> {
        self.norms.get(site.index)?.as_ref()
    }

    /// The invertible adapter at the embeddings, if there is one.
    pub fn invertible(&self) -> Option<&Coupling> {
        self.invertible.as_ref()
    }

    /// The invertible adapter, which a decoder beside an encoder does not have.
    fn coupling_at(&self, site: &Site) -> Option<&Coupling> {
        self.invertible.as_ref().filter(|_| site.role != Role::DecoderEmbeddings)
    }

    /// Without the adapters (and trained norms) of some layers, counted from zero: AdapterDrop at
    /// inference (Rücklé et al. 2021, arXiv 2010.11918). Save it with these layers in the
    /// configuration's `leave_out`.
    pub fn leave_out(mut self, layers: &[usize]) -> Self {
        for (index, layer) in self.layer_of.iter().enumerate() {
            if layer.is_some_and(|layer| layers.contains(&layer)) {
                self.layers[index] = None;
                self.norms[index] = None;
            }
        }
        self
    }

    /// What an adapter at `layer` is given, and where its residual connection begins, each
    /// `[batch, tokens, d]`.
    pub fn inputs(
        &self,
        layer: &ResidualLayer<'_>,
        states: &ResidualStates,
    ) -> (Tensor<3>, Tensor<3>) {
        let output = states.output.clone();
        if self.wiring.parallel {
            return (states.residual.clone(), output);
        }
        let input =
            if self.wiring.norm_first { layer.forward(states.clone()) } else { output.clone() };
        let residual = match self.wiring.residual {
            ResidualBeforeNorm::Output => output,
            ResidualBeforeNorm::Input => input.clone(),
            ResidualBeforeNorm::PostAdd => output + states.residual.clone(),
        };
        (input, residual)
    }

    /// `s f(x)` of the adapter at a site for `x` of shape `[batch, tokens, d]`, before residual
    /// connection and `ln_after`; `None` where there is no adapter.
    pub fn update(&self, site: &Site, input: Tensor<3>) -> Option<Tensor<3>> {
        Some(self.layer(site)?.update(input, self.shared.as_ref()))
    }
}

impl Hooks for Bottleneck {
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let Some(adapter) = self.layer(layer.site()) else { return states };
        let (input, residual) = self.inputs(layer, &states);
        let update = adapter.update(input, self.shared.as_ref());
        let before_norm = self.wiring.residual_before_norm && !self.wiring.parallel;
        ResidualStates { output: adapter.join(update, residual, before_norm), ..states }
    }

    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        self.inputs(layer, states).0
    }

    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.norm(layer.site()).map(|norm| norm.gain.val())
    }

    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.norm(layer.site())?.bias.as_ref().map(|bias| bias.val())
    }

    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        match self.coupling_at(site) {
            Some(coupling) => Embedded { hidden: coupling.forward(embedded.hidden), ..embedded },
            None => embedded,
        }
    }

    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        match self.coupling_at(site) {
            Some(coupling) => coupling.inverse(hidden),
            None => hidden,
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
                norm.exchange(file, site);
            }
        }
        let prefix = base.model_prefix();
        if let Some(shared) = &mut self.shared {
            shared.exchange(file, prefix);
        }
        if let Some(coupling) = &mut self.invertible {
            let encoder = if base.is_encoder_decoder() { "encoder." } else { "" };
            coupling.exchange(file, &format!("{prefix}{encoder}"));
        }
    }

    fn change(&self, site: &Site) -> Change {
        self.norm(site).map_or(Change::default(), TrainedNorm::change)
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it adds a function with a non-linearity to the sublayers".into())
    }
}
