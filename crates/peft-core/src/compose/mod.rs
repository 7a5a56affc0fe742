//! Methods made of methods.

mod average;
mod gated;
mod per_layer;
mod pool;
mod refuse;
mod split;
mod stack;

pub use average::Average;
pub use gated::{GateKind, Gated};
pub use per_layer::PerLayer;
pub use pool::AdapterPool;
pub use refuse::{Acts, refuse_stack};
pub use split::Split;
pub use stack::Stack;

use std::fmt::Debug;

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::edit::Answer;
use crate::hooks::AllHooks;
use crate::method::AllMethod;
use crate::{
    Base, BoxedMethod, Edits, Exchange, ExtraKeys, Hooks, Insert, LossContext, Method, NormEdit,
    Pass, Result, SideNetworks, Site, Stage, StepContext, TableEdit, Tokens,
};

/// A method made of methods: one rule, by which the answers of its members become one, at every
/// hook.
///
/// All hooks and the whole life cycle are written here, once for all composites.
pub(crate) trait Composite: Debug + Send + Sync {
    /// The members.
    fn members(&self) -> &[BoxedMethod];

    /// The same, to be changed.
    fn members_mut(&mut self) -> &mut [BoxedMethod];

    /// The answer at a site in a pass, from those of members.
    fn answer<'a, A: Answer>(
        &'a self,
        site: &Site,
        pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A;

    /// The pass as members see it.
    fn inside<'p>(&self, pass: &Pass<'p>) -> Pass<'p> {
        *pass
    }

    /// What becomes of the tokens, which go through members one after another or side by side.
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens;

    /// Tensors of the composite's own.
    fn exchange_own(&mut self, _file: &mut Exchange<'_>, _base: &Base) {}

    /// Why it cannot be merged although its members can.
    fn own_obstacle(&self) -> Option<&'static str> {
        None
    }

    /// Whether it reads padding although no member does.
    fn reads_padding(&self) -> bool {
        false
    }

    /// Whether what it does to a token depends on where that stands, although it does not for a member.
    fn reads_positions(&self) -> bool {
        false
    }

    /// How positions of members go together.
    fn positions(&self, members: &[usize]) -> usize {
        members.iter().copied().max().unwrap_or(0)
    }
}

impl<C: Composite> AllHooks for C {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let inside = &self.inside(pass);
        self.answer(site, pass, |member| Hooks::linear(member, site, inside))
    }
    fn norm(&self, site: &Site, pass: &Pass<'_>) -> NormEdit {
        let inside = &self.inside(pass);
        self.answer(site, pass, |member| Hooks::norm(member, site, inside))
    }
    fn table(&self, site: &Site, pass: &Pass<'_>) -> TableEdit {
        let inside = &self.inside(pass);
        self.answer(site, pass, |member| Hooks::table(member, site, inside))
    }
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        self.through(stage, site, tokens, pass)
    }
    fn attention(&self, site: &Site, pass: &Pass<'_>) -> ExtraKeys {
        let inside = &self.inside(pass);
        self.answer(site, pass, |member| Hooks::attention(member, site, inside))
    }
    fn sublayer<'a>(&'a self, site: &Site, pass: &Pass<'_>) -> Insert<'a> {
        let inside = &self.inside(pass);
        self.answer(site, pass, |member: &'a BoxedMethod| Hooks::sublayer(member, site, inside))
    }
    fn beside<'a>(&'a self, site: &Site, pass: &Pass<'_>) -> SideNetworks<'a> {
        self.answer(site, pass, |member: &'a BoxedMethod| Hooks::beside(member, site, pass))
    }
    fn needs_padding(&self) -> bool {
        self.reads_padding() || self.members().iter().any(Hooks::needs_padding)
    }
    fn needs_every_token(&self) -> bool {
        self.reads_positions() || self.members().iter().any(Hooks::needs_every_token)
    }
}

impl<C: Composite> AllMethod for C {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.members_mut().iter_mut().for_each(|member| Method::exchange(member, file, base));
        self.exchange_own(file, base);
    }
    fn merge_obstacle(&self) -> Option<String> {
        let own = self.own_obstacle().map(str::to_string);
        own.or_else(|| self.members().iter().find_map(Method::merge_obstacle))
    }
    fn loss(&self, context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        let terms = self.members().iter().map(|member| Method::loss(member, context));
        let terms = terms.collect::<Result<Vec<_>>>()?;
        Ok(terms.into_iter().flatten().reduce(|sum, term| sum + term))
    }
    fn precondition(&mut self, gradients: &mut GradientsParams) {
        self.members_mut().iter_mut().for_each(|member| Method::precondition(member, gradients));
    }
    fn after_step(&mut self, context: &StepContext<'_>) {
        self.members_mut().iter_mut().for_each(|member| Method::after_step(member, context));
    }
    fn adopt(&mut self, below: Vec<BoxedMethod>) -> Vec<BoxedMethod> {
        self.members_mut().iter_mut().fold(below, |below, member| Method::adopt(member, below))
    }
    fn finish(&mut self) {
        self.members_mut().iter_mut().for_each(Method::finish);
    }
    fn virtual_tokens(&self) -> usize {
        let members: Vec<usize> = self.members().iter().map(Method::virtual_tokens).collect();
        self.positions(&members)
    }
    fn lr_factors(&self) -> Vec<(String, f64)> {
        self.members().iter().flat_map(Method::lr_factors).collect()
    }
}
