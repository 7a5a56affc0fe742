//! Methods applied one on another.

use burn::module::Module;

use super::Composite;
use crate::edit::Answer;
use crate::{BoxedMethod, Hooks, Pass, Site, Stage, Tokens};

/// Methods applied one on another: each acts on the model as the methods before it leave it.
///
/// Two LoRAs add up, `x W + Δ₁(x) + Δ₂(x)`; an (IA)³ after a LoRA scales the adapted output.
#[derive(Module, Debug)]
pub struct Stack {
    methods: Vec<BoxedMethod>,
}

impl Stack {
    /// Stacks `methods`, the first nearest to the base.
    pub fn new(methods: Vec<BoxedMethod>) -> Self {
        Self { methods }
    }

    /// The methods, the first nearest to the base.
    pub fn methods(&self) -> &[BoxedMethod] {
        &self.methods
    }
}

impl Composite for Stack {
    fn members(&self) -> &[BoxedMethod] {
        &self.methods
    }
    fn members_mut(&mut self) -> &mut [BoxedMethod] {
        &mut self.methods
    }
    fn answer<'a, A: Answer>(
        &'a self,
        _site: &Site,
        _pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A {
        A::stacked(self.methods.iter().map(of).collect())
    }
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        let next = |tokens: Tokens, method: &BoxedMethod| {
            let rows = tokens.rows.clone();
            method.tokens(stage, site, tokens, &pass.over(&rows, pass.slots))
        };
        match stage {
            Stage::Embedded | Stage::Input => self.methods.iter().fold(tokens, next),
            // The last change is undone first.
            Stage::Output => self.methods.iter().rev().fold(tokens, next),
        }
    }
    fn positions(&self, members: &[usize]) -> usize {
        members.iter().sum()
    }
}
