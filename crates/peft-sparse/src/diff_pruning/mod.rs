//! Diff pruning: a change that is made sparse while it is trained.

mod config;
mod gate;

pub use config::DiffPruningConfig;
pub use gate::HardConcrete;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Added, Base, Edit, Edits, Exchange, Hooks, InitContext, LossContext, MemoKey, Method, Pass,
    Result, Site, StepContext,
};

use crate::once::Once;
use crate::selection::{Selection, highest};
use crate::{MaskedDelta, SelectedEntries, masked};

/// Diff pruning (Guo, Rush and Kim 2021, arXiv 2012.07463): `y = x (W + δ) + b` with `δ = z ⊙ w`, where a
/// change `w`, gates `z` and their `α` have the shape `[d_in, d_out]` of the weight.
///
/// ```text
/// z = min(1, max(0, σ(log u - log(1 - u) + α) (r - l) + l))      u: uniform, drawn at each step
/// loss + c Σ σ(α - log(-l / r))                                  the gates expected to be open
/// structured: z and the terms of the sum times those of a gate that a whole weight has
/// ```
///
/// After a share of the steps, the `k` entries at which `|δ|` is largest, over all weights together, are
/// chosen, with `u = 1/2`; they keep `δ` as their `w`, and are trained on without gates. (The paper cuts
/// `δ` to its largest entries after training, and goes on with those alone.) What is saved before is what
/// would be chosen then. In inference, before that, gates are at `u = 1/2`.
///
/// The sum is over entries, so that `c` is for models of the paper's size; whatever gates are open in the
/// end, `k` entries are left.
///
/// Created with [`DiffPruningConfig`].
#[derive(Module, Debug)]
pub struct DiffPruning {
    /// By [`Site::index`]; none once it is finished.
    layers: Vec<Option<DiffPruningLayer>>,
    /// Whether entries are chosen.
    chosen: Once,
    /// What is left once it is finished.
    finished: Option<SelectedEntries>,
    #[module(skip)]
    config: DiffPruningConfig,
    /// `k`.
    #[module(skip)]
    count: usize,
}

/// What is trained at one site.
#[derive(Module, Debug)]
pub struct DiffPruningLayer {
    /// `w`, and which entries are chosen: at first all.
    pub change: MaskedDelta,
    /// `α`, `[d_in, d_out]`.
    pub alpha: Param<Tensor<2>>,
    /// `α` of the whole weight, `[1]`.
    pub alpha_group: Option<Param<Tensor<1>>>,
}

impl DiffPruningLayer {
    /// `z ⊙ w`, with the gates of a step, or at `u = 1/2` where there is none.
    fn gated(&self, gates: HardConcrete, pass: Option<&Pass<'_>>) -> Tensor<2> {
        let (alpha, w) = (self.alpha.val(), self.change.delta.val());
        let device = w.device().without_autodiff();
        let uniform = pass.and_then(|pass| pass.uniform(alpha.dims(), &device));
        let change = gates.gates(alpha, uniform) * w;
        match &self.alpha_group {
            Some(alpha) => {
                let uniform = pass.and_then(|pass| pass.uniform([1], &device));
                change * gates.gates(alpha.val(), uniform).unsqueeze()
            }
            None => change,
        }
    }

    /// How many gates are expected to be open, `[1]`.
    fn open(&self, gates: HardConcrete) -> Tensor<1> {
        let open = gates.open(self.alpha.val()).sum();
        match &self.alpha_group {
            Some(alpha) => open * gates.open(alpha.val()),
            None => open,
        }
    }
}

impl DiffPruning {
    fn new(config: &DiffPruningConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let selection = Selection::new(&config.targets, config.keep_ratio, base)?;
        let mut layers = vec![None; base.len()];
        let chosen = Once::new(device);
        let (config, count) = (config.clone(), selection.count);
        // A file has what is left at the end.
        if context.is_read() {
            let left = SelectedEntries::zeros(&selection.sites, &selection.spread(), base, device);
            return Ok(Self { layers, chosen, finished: Some(left), config, count });
        }
        for site in &selection.sites {
            let alpha = config.alpha_init;
            layers[site.index] = Some(DiffPruningLayer {
                change: MaskedDelta::zeros(site, device),
                alpha: Param::from_tensor(Tensor::full(site.shape, alpha, device)),
                alpha_group: config
                    .structured
                    .then(|| Param::from_tensor(Tensor::full([1], alpha, device))),
            });
        }
        Ok(Self { layers, chosen, finished: None, config, count })
    }

    /// `δ` of each layer without a tape, and the score of each entry.
    fn changes(&self) -> Vec<Option<(Tensor<2>, Vec<f32>)>> {
        let (gates, is_chosen) = (self.config.gates(), self.chosen.has_happened());
        let of = |layer: &DiffPruningLayer| {
            let change = match is_chosen {
                true => layer.change.values(),
                false => masked::plain(layer.gated(gates, None)),
            };
            let scores = layer.change.scores(change.clone().abs());
            (change, scores)
        };
        self.layers.iter().map(|layer| layer.as_ref().map(of)).collect()
    }

    /// Goes on with `k` entries alone.
    fn choose(&mut self) {
        let (changes, scores): (Vec<_>, Vec<_>) = self.changes().into_iter().flatten().unzip();
        let places = highest(&scores, self.count);
        let layers = self.layers.iter_mut().flatten();
        for (layer, (change, places)) in layers.zip(changes.into_iter().zip(places)) {
            layer.change.set(change);
            layer.change.keep(&places);
        }
        self.chosen.happens();
    }
}

impl Hooks for DiffPruning {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        if let Some(finished) = &self.finished {
            return finished.linear(site, pass);
        }
        let Some(Some(layer)) = self.layers.get(site.index) else { return Edits::none() };
        let is_chosen = self.chosen.has_happened_in(pass);
        let key = MemoKey { of: layer.alpha.id, name: "gated", site: None };
        let values = pass.memo.get(key, || match is_chosen {
            true => layer.change.masked(layer.change.delta.val()),
            false => layer.gated(self.config.gates(), Some(pass)),
        });
        Edit::Weight(Arc::new(Added { values, rank: None })).into()
    }
}

impl Method for DiffPruning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        // A file has what is left at the end.
        self.finish();
        if let Some(finished) = &mut self.finished {
            finished.exchange(file, base);
        }
    }

    fn loss(&self, _context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        if self.config.sparsity_pen == 0.0 || self.chosen.has_happened() {
            return Ok(None);
        }
        let gates = self.config.gates();
        let open = self.layers.iter().flatten().map(|layer| layer.open(gates));
        let open = open.reduce(|sum, term| sum + term);
        Ok(open.map(|open| open * self.config.sparsity_pen))
    }

    fn after_step(&mut self, context: &StepContext<'_>) {
        if self.finished.is_none() && self.config.chooses(context.progress) {
            self.choose();
        }
    }

    fn finish(&mut self) {
        let Some(first) = self.layers.iter().flatten().next() else { return };
        let device = first.alpha.val().device();
        self.finished = Some(masked::entries(self.changes(), self.count, &device));
        self.layers = vec![None; self.layers.len()];
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        vec![("alpha(_group)?".into(), self.config.alpha_lr_ratio)]
    }
}
