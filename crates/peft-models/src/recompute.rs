//! Gradient checkpointing by sublayer (Chen et al. 2016, arXiv 1604.06174).

use std::cell::RefCell;
use std::ops::Range;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use peft_core::{EmptyPass, Hooks, Memo, Mode, Pass, Rows, Site, SiteKind, Slots};

use crate::Model;
use crate::blocks::{EncodedText, Sublayer};
use crate::body::Transformer;
use crate::forward::Run;

/// Forward passes that keep what enters each sublayer, and nothing of what is computed in it: the
/// backward pass runs each a second time, and has the intermediate results of one at a time.
///
/// The last layer is not run again, as it is the first that the backward pass needs, and neither is the
/// one below it where the last one computes but what a head reads; of what is, the last product is left out, on which no gradient depends. Loss and gradients are those of an ordinary
/// pass, dropout included. Sums of gradients may be rounded otherwise, as their terms come in another
/// order, and so may operations that the device has in another form where nothing is recorded.
///
/// ```no_run
/// # use burn::module::Module;
/// # use peft_models::{Forward, Model, ModelInput, Recompute, Result};
/// # fn step(model: &Model, input: &ModelInput, method: &peft_core::BoxedMethod) -> Result<()> {
/// let inner = method.valid();
/// let recompute = Recompute::new(model, &inner);
/// let how = Forward::train(method, 42, 0).with_recompute(&recompute);
/// let objective = model.forward(input, how)?.mean();
/// let gradients = recompute.backward(method, objective);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recompute<'a> {
    model: &'a Model,
    /// The method without autodiff.
    inner: &'a dyn Hooks,
    /// The first site, in the order of the model, at which the method acts.
    lowest: Option<usize>,
    passes: RefCell<Vec<Kept>>,
}

/// What is kept of a pass.
#[derive(Debug)]
struct Kept {
    mode: Mode,
    slots: Slots,
    memo: Memo,
    stacks: Vec<KeptStack>,
    encoded: Option<Encoded>,
}

/// What is kept of a stack of layers.
#[derive(Debug)]
struct KeptStack {
    rows: Rows,
    /// The first layer that ran.
    first: usize,
    /// What entered it: the embeddings' output, on its tape if they are trained.
    embedded: Tensor<2>,
    /// What entered the sublayers that are run again.
    entered: Vec<Entered>,
    /// What entered the first layer that is not: where its tape begins.
    last: Tensor<2>,
}

/// What entered a sublayer: the sum that the one under it ends in, before the norm where that comes
/// last.
#[derive(Debug)]
struct Entered {
    states: Tensor<2>,
    /// How many random draws there were before.
    draws: u64,
    /// Whether something below is trained.
    wants_gradient: bool,
}

/// What an encoder returned.
#[derive(Debug)]
struct Encoded {
    /// On the tape of the encoder's last layer.
    states: Tensor<2>,
    /// The same, where the tapes of the decoder's layers begin.
    leaf: Tensor<2>,
}

impl<'a> Recompute<'a> {
    /// For passes of `model` under a method; `inner` is the method without autodiff
    /// (`method.valid()`).
    pub fn new(model: &'a Model, inner: &'a dyn Hooks) -> Self {
        let parts = EmptyPass::new(model.base().device());
        let pass = parts.pass();
        let lowest = model.base().sites().find(|site| acts(inner, site, &pass));
        let lowest = lowest.map(|site| site.index);
        Self { model, inner, lowest, passes: RefCell::default() }
    }

    /// A pass begins.
    pub(crate) fn begin(&self, pass: &Pass<'_>) {
        let (mode, slots, memo) = (pass.mode, pass.slots.clone(), pass.memo.apart());
        self.passes.borrow_mut().push(Kept {
            mode,
            slots,
            memo,
            stacks: Vec::new(),
            encoded: None,
        });
    }

    /// What enters the layer behind these of a stack, where a tape begins; none of these is on one. What
    /// enters the first of them are the embeddings' output where it is the first of all.
    pub(crate) fn entering(
        &self,
        (stack, layers): (&Transformer, Range<usize>),
        embedded: Tensor<2>,
        encoded: Option<&EncodedText>,
        run: Run<'_>,
    ) -> Tensor<2> {
        let rows = run.pass.rows;
        let without_tape = encoded.map(|encoded| EncodedText {
            hidden: encoded.hidden.clone().without_autodiff(),
            rows: encoded.rows.clone(),
            beside: Vec::new(),
        });
        let context = stack.context(rows, without_tape.as_ref());
        let memo = run.pass.memo.apart();
        let inner = Run { hooks: self.inner, ..run }.with_memo(Some(&memo));
        let crosses = encoded.is_some_and(|encoded| encoded.hidden.is_tracked());
        let mut wants_gradient = embedded.is_tracked();
        let mut states = embedded.clone().without_autodiff();
        let (first, below) = (layers.start, stack.layers[layers].iter().flatten());
        let mut entered = Vec::new();
        let mut under = None;
        for sublayer in below {
            entered.push(Entered { states: states.clone(), draws: memo.draws(), wants_gradient });
            let hidden = left(under, states, inner);
            states = sublayer.summed(hidden, &context, false, inner);
            wants_gradient |= crosses || self.acts_up_to(sublayer);
            under = Some(sublayer);
        }
        let last = leaf(states, wants_gradient);
        if let Some(kept) = self.passes.borrow_mut().last_mut() {
            let (rows, last) = (rows.clone(), last.clone());
            kept.stacks.push(KeptStack { rows, first, embedded, entered, last });
        }
        left(under, last, run)
    }

    /// What a decoder is given of an encoder's output.
    pub(crate) fn encoded(&self, states: Tensor<2>) -> Tensor<2> {
        let leaf = leaf(states.clone().without_autodiff(), states.is_tracked());
        if let Some(kept) = self.passes.borrow_mut().last_mut() {
            kept.encoded = Some(Encoded { states, leaf: leaf.clone() });
        }
        leaf
    }

    /// Whether the method acts in this sublayer, or below it.
    fn acts_up_to(&self, sublayer: &Sublayer) -> bool {
        self.lowest.is_some_and(|lowest| lowest <= sublayer.site().index)
    }

    /// The gradients of an objective, `[1]`, which is a function of what the passes gave, with
    /// respect to the parameters of `method`: that under which they ran.
    ///
    /// # Panics
    /// If the objective does not depend on a trained parameter.
    pub fn backward<M: Module + Hooks>(self, method: &M, objective: Tensor<1>) -> GradientsParams {
        let mut sum = Sum { method, gradients: GradientsAccumulator::new() };
        let mut gradients = objective.backward();
        drop(objective);
        // Those at the ends of all tapes, before the rest is taken by parameter.
        let ends = self.passes.take().into_iter().map(|kept| {
            let of_last = kept.stacks.last().and_then(|s| s.last.grad_remove(&mut gradients));
            let encoded = kept.encoded.as_ref();
            let of_encoded = encoded.and_then(|e| e.leaf.grad_remove(&mut gradients));
            (kept, of_last, of_encoded)
        });
        let ends: Vec<_> = ends.collect();
        sum.add(gradients);
        for (kept, of_last, of_encoded) in ends {
            self.descend(kept, of_last, of_encoded, &mut sum);
        }
        sum.gradients.grads()
    }

    /// Runs the sublayers of a pass again, from the last to the first.
    fn descend<M: Module + Hooks>(
        &self,
        kept: Kept,
        of_last: Option<Tensor<2>>,
        of_encoded: Option<Tensor<2>>,
        sum: &mut Sum<'_, M>,
    ) {
        let Kept { mode, slots, memo, stacks, encoded } = kept;
        let mut again = Again { mode, slots, memo, of_encoded, sum };
        let (transformers, mut stacks) = (self.model.body().stacks(), stacks.into_iter());
        let Some(first) = stacks.next() else { return };
        let mut of_first = of_last;
        if let (Some(decoder), Some(Encoded { states, leaf })) = (stacks.next(), encoded) {
            let text = EncodedText { hidden: leaf, rows: first.rows.clone(), beside: Vec::new() };
            again.stack(transformers[1], decoder, of_first, Some(&text));
            of_first = again.of_encoded.take().and_then(|gradient| {
                let mut gradients = weighted(states, gradient)?.backward();
                let of_first = first.last.grad_remove(&mut gradients);
                again.sum.add(gradients);
                of_first
            });
        }
        again.stack(transformers[0], first, of_first, None);
    }
}

/// A pass that is run a second time.
struct Again<'s, 'm, M> {
    mode: Mode,
    slots: Slots,
    memo: Memo,
    /// The gradient of what an encoder returned, from the layers that have run.
    of_encoded: Option<Tensor<2>>,
    sum: &'s mut Sum<'m, M>,
}

impl<M: Module + Hooks> Again<'_, '_, M> {
    /// The sublayers of a stack below its last layer, of whose input this is the gradient, and the embeddings.
    fn stack(
        &mut self,
        transformer: &Transformer,
        kept: KeptStack,
        of_last: Option<Tensor<2>>,
        encoded: Option<&EncodedText>,
    ) {
        let KeptStack { rows, first, embedded, entered, .. } = kept;
        let context = transformer.context(&rows, encoded);
        let mut gradient = of_last;
        let sublayers = transformer.sublayers_from(first);
        for (number, entered) in entered.into_iter().enumerate().rev() {
            let Some(above) = gradient else { return };
            let memo = self.memo.again(entered.draws);
            let (slots, mode) = (&self.slots, self.mode);
            let pass = Pass { rows: &rows, slots, mode, memo: &memo, probe: None };
            let run =
                Run { hooks: self.sum.method, pass, cache: None, recompute: None, from: None };
            let input = leaf(entered.states, entered.wants_gradient);
            let under = number.checked_sub(1).map(|under| sublayers[under]);
            let hidden = left(under, input.clone(), run);
            let output = sublayers[number].summed(hidden, &context, true, run);
            // Adapters that are not trained may act below those that are.
            let Some(sum) = weighted(output, above) else { return };
            let mut gradients = sum.backward();
            gradient = input.grad_remove(&mut gradients);
            let of_encoded = encoded.and_then(|text| text.hidden.grad_remove(&mut gradients));
            self.of_encoded = match (self.of_encoded.take(), of_encoded) {
                (Some(sum), Some(more)) => Some(sum + more),
                (one, other) => one.or(other),
            };
            self.sum.add(gradients);
        }
        if let Some(sum) = gradient.and_then(|gradient| weighted(embedded, gradient)) {
            self.sum.add(sum.backward());
        }
    }
}

/// The gradients of a method's parameters, summed over layers.
struct Sum<'m, M> {
    method: &'m M,
    gradients: GradientsAccumulator<M>,
}

impl<M: Module> Sum<'_, M> {
    fn add(&mut self, gradients: Gradients) {
        let gradients = GradientsParams::from_grads(gradients, self.method);
        self.gradients.accumulate(self.method, gradients);
    }
}

/// Where a tape begins, if a gradient is wanted there.
fn leaf(states: Tensor<2>, wants_gradient: bool) -> Tensor<2> {
    if wants_gradient { states.autodiff().require_grad() } else { states }
}

/// What a sublayer is given: the sum that the one under it ends in, under its norm where that comes
/// last.
fn left(under: Option<&Sublayer>, sum: Tensor<2>, run: Run<'_>) -> Tensor<2> {
    match under {
        Some(under) => under.leaving(sum, run),
        None => sum,
    }
}

/// A sum whose gradient with respect to `states` is `gradient`; `None` where they are on no tape.
fn weighted(states: Tensor<2>, gradient: Tensor<2>) -> Option<Tensor<1>> {
    states.is_tracked().then(|| (states * gradient).sum())
}

/// Whether a method acts at a site of a layer.
fn acts(hooks: &dyn Hooks, site: &Site, pass: &Pass<'_>) -> bool {
    match site.kind {
        SiteKind::Linear => !hooks.linear(site, pass).is_none(),
        SiteKind::Norm => !hooks.norm(site, pass).is_none(),
        SiteKind::Attention => !hooks.attention(site, pass).is_none(),
        SiteKind::Sublayer => !hooks.sublayer(site, pass).is_none(),
        // Embeddings are before the first layer, and their tape is kept.
        SiteKind::Embedding => false,
    }
}
