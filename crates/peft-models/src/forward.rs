//! How a model is run.

use peft_core::{Hooks, Memo, Mode, Pass, Probe, Rows, Slots};

use crate::{Cache, LayerInput, Recompute};

/// How a model is run: under which method, and for what.
///
/// ```
/// # use peft_models::Forward;
/// let base_alone = Forward::infer(&());
/// let step = Forward::train(&(), 42, 0);
/// ```
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    pub(crate) hooks: &'a dyn Hooks,
    pub(crate) mode: Mode,
    pub(crate) slots: Option<&'a Slots>,
    pub(crate) memo: Option<&'a Memo>,
    pub(crate) probe: Option<&'a Probe>,
    pub(crate) cache: Option<&'a Cache>,
    pub(crate) recompute: Option<&'a Recompute<'a>>,
    pub(crate) from: Option<&'a LayerInput>,
    pub(crate) padded: bool,
}

impl<'a> Forward<'a> {
    fn new(hooks: &'a dyn Hooks, mode: Mode) -> Self {
        Self {
            hooks,
            mode,
            slots: None,
            memo: None,
            probe: None,
            cache: None,
            recompute: None,
            from: None,
            padded: false,
        }
    }

    /// In inference; `&()` is the base model. `hooks` should be without autodiff
    /// (`method.valid()`).
    pub fn infer(hooks: &'a dyn Hooks) -> Self {
        Self::new(hooks, Mode::Infer)
    }

    /// In a training step: dropout acts, the base's own and the method's, as a function of the
    /// run's seed and the number of the step.
    pub fn train(hooks: &'a dyn Hooks, seed: u64, step: u64) -> Self {
        Self::new(hooks, Mode::Train { seed, step })
    }

    /// With rows under the adapters of a pool.
    pub fn with_slots(self, slots: &'a Slots) -> Self {
        Self { slots: Some(slots), ..self }
    }

    /// With what is computed once, for as long as no parameter of the method changes: one step, one
    /// evaluation, one generation.
    pub fn with_memo(self, memo: &'a Memo) -> Self {
        Self { memo: Some(memo), ..self }
    }

    /// With an eye on what methods decide.
    pub fn with_probe(self, probe: &'a Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// Going on from the tokens in `cache`, and adding to it.
    pub fn with_cache(self, cache: &'a Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Keeping no more than what enters each sublayer; gradients are those of
    /// [`Recompute::backward`].
    pub fn with_recompute(self, recompute: &'a Recompute<'a>) -> Self {
        Self { recompute: Some(recompute), ..self }
    }

    /// From a layer on, which `input` enters: that of the same texts.
    pub fn from_layer(self, input: &'a LayerInput) -> Self {
        Self { from: Some(input), ..self }
    }

    /// With padding left in the batch, even where nothing reads it.
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }
}

/// A run of a model as its blocks see it.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) hooks: &'a dyn Hooks,
    pub(crate) pass: Pass<'a>,
    pub(crate) cache: Option<&'a Cache>,
    pub(crate) recompute: Option<&'a Recompute<'a>>,
    pub(crate) from: Option<&'a LayerInput>,
}

impl<'a> Run<'a> {
    /// A run of a pass from the beginning.
    pub(crate) fn infer(hooks: &'a dyn Hooks, pass: Pass<'a>) -> Self {
        Self { hooks, pass, cache: None, recompute: None, from: None }
    }

    /// The same where tensors hold the tokens of other rows, under the adapters of the same texts.
    pub(crate) fn over<'b>(self, rows: &'b Rows) -> Run<'b>
    where
        'a: 'b,
    {
        Run { pass: self.pass.over(rows, self.pass.slots), ..self }
    }

    /// The same with another memo, where there is one.
    pub(crate) fn with_memo<'b>(self, memo: Option<&'b Memo>) -> Run<'b>
    where
        'a: 'b,
    {
        Run { pass: Pass { memo: memo.unwrap_or(self.pass.memo), ..self.pass }, ..self }
    }

    /// Whether of the last layer nothing matters but what the head reads.
    pub(crate) fn can_leave_out(&self) -> bool {
        let every = self.hooks.needs_every_token() || self.hooks.needs_padding();
        !every && self.cache.is_none() && self.pass.probe.is_none()
    }

    /// A memo for a part of the pass whose tape is not that of the rest.
    pub(crate) fn memo_apart(&self) -> Option<Memo> {
        self.recompute.map(|_| self.pass.memo.apart())
    }
}
