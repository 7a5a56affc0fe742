//! Networks of a method beside the layers of a stack, as they run.

use burn::tensor::Tensor;
use peft_core::{Hooks, Pass, Rows, SideNetworks};

use crate::blocks::{Context, EncodedText, Sublayer};
use crate::body::{Transformer, through};
use crate::forward::Run;

/// The networks beside a stack in a pass, as far as they are.
pub(crate) struct Ladder<'a> {
    stack: &'a Transformer,
    beside: &'a SideNetworks<'a>,
    sides: Vec<Side<'a>>,
    run: Run<'a>,
}

/// A network as far as it is.
struct Side<'a> {
    /// `[tokens, d']`.
    states: Tensor<2>,
    context: Context<'a>,
}

impl Transformer {
    /// The networks that run beside it.
    pub(crate) fn beside<'a>(&self, hooks: &'a dyn Hooks, pass: &Pass<'_>) -> SideNetworks<'a> {
        hooks.beside(&self.embeddings.site, pass)
    }

    /// Whether any network runs beside it.
    pub(crate) fn has_beside(&self, run: Run<'_>) -> bool {
        !self.beside(run.hooks, &run.pass).is_none()
    }
}

impl<'a> Ladder<'a> {
    /// With what enters the first layer, `[tokens, d]`; `encoded` is what an encoder returned, with the
    /// last states of the networks beside it.
    pub(crate) fn enter(
        stack: &'a Transformer,
        beside: &'a SideNetworks<'a>,
        embedded: &Tensor<2>,
        encoded: Option<&'a EncodedText>,
        run: Run<'a>,
    ) -> Self {
        let side = |(number, network): (usize, &dyn peft_core::SideNetwork)| {
            let encoded = encoded.map(|encoded| &encoded.beside[number]);
            let mut context = stack.context(run.pass.rows, encoded);
            let rotary = stack.rotary.as_ref().map(|rotary| rotary.narrowed(network.reduction()));
            let device = run.pass.rows.device();
            context.angles = rotary.map(|rotary| rotary.angles(&run.pass.rows.positions(), device));
            Side { states: network.enter(embedded.clone()), context }
        };
        let sides = beside.networks().enumerate().map(|(n, network)| side((n, network))).collect();
        Self { stack, beside, sides, run }
    }

    /// Past a layer that returned these states, `[tokens, d]`.
    pub(crate) fn climb(&mut self, layer: &[Sublayer], states: &Tensor<2>) {
        let Some(number) = layer.first().and_then(|sublayer| sublayer.site().layer) else { return };
        let is_rotary = self.stack.rotary.is_some();
        let mut cache = self.run.cache;
        for (network, side) in self.beside.networks().zip(&mut self.sides) {
            // Each network has the keys and values of its own.
            cache = cache.map(|cache| cache.beside());
            let Some(mixed) = network.mix(number, &side.states, states) else { continue };
            let narrow = layer.iter().map(|part| part.narrowed(network.reduction(), is_rotary));
            let narrow: Vec<Sublayer> = narrow.collect();
            let run = Run { hooks: network, cache, ..self.run };
            side.states = through(&narrow, mixed, &side.context, run);
        }
    }

    /// The last states of each network, behind its norm, `[tokens, d']`.
    pub(crate) fn top(self) -> Vec<Tensor<2>> {
        let normalized = self.beside.networks().zip(self.sides).map(|(network, side)| {
            self.stack.normalized(side.states, Run { hooks: network, ..self.run })
        });
        normalized.collect()
    }
}

/// What an encoder returned to the networks beside a decoder.
pub(crate) fn encoded_beside(tops: Vec<Tensor<2>>, rows: &Rows) -> Vec<EncodedText> {
    let text = |hidden| EncodedText { hidden, rows: rows.clone(), beside: Vec::new() };
    tops.into_iter().map(text).collect()
}
