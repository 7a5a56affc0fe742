//! The side network of a stack, as the model runs it.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;
use peft_core::{Edit, Edits, Hooks, NormEdit, Pass, Replaced, SideNetwork, Site, TrainedNorm};

use crate::LadderSide;

/// The side network of a stack.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    ladder: &'a LadderSide,
    /// 0 of an encoder or of the only stack, 1 of a decoder behind an encoder.
    stack: usize,
}

impl<'a> Network<'a> {
    pub(crate) fn new(ladder: &'a LadderSide, stack: usize) -> Self {
        Self { ladder, stack }
    }
}

impl Hooks for Network<'_> {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(own) = self.ladder.linear_at(site) else { return Edits::none() };
        let weight = Edits::from(Edit::Weight(Arc::new(Replaced(own.weight.val()))));
        match own.bias.as_ref().map(Param::val) {
            Some(bias) => weight.then(Edit::Bias(bias)),
            None => weight,
        }
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.ladder.norm_at(site).map(TrainedNorm::edit).unwrap_or_default()
    }
}

impl SideNetwork for Network<'_> {
    fn reduction(&self) -> usize {
        self.ladder.reduction()
    }

    fn enter(&self, embedded: Tensor<2>) -> Tensor<2> {
        self.ladder.entrance(self.stack).forward(embedded)
    }

    fn mix(&self, layer: usize, side: &Tensor<2>, states: &Tensor<2>) -> Option<Tensor<2>> {
        let rung = self.ladder.rung(layer)?;
        let gate = self.ladder.gate(&rung.gate);
        let read = rung.down.forward(states.clone());
        Some(read.clone() + (side.clone() - read) * gate)
    }

    fn leave(&self, side: Tensor<2>, states: Tensor<2>) -> Tensor<2> {
        let (up, gate) = self.ladder.exit();
        let side = up.forward(side);
        match gate {
            Some(gate) => states.clone() + (side - states) * gate,
            None => side,
        }
    }
}
