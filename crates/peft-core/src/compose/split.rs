//! Stretches of a text under adapters of their own.

use burn::module::{Module, ParamId};

use super::Composite;
use crate::edit::Answer;
use crate::{BoxedMethod, MemoKey, Pass, Route, Site, Stage, Tokens};

/// Each text cut into spans, each under an adapter of its own: the first tokens under the first, as
/// many as its number says, the next under the second. What lies behind all spans is under the last.
///
/// Only what a method does to each token can be cut so; what every token of a text sees (keys and
/// values, virtual tokens) is refused where adapters are put together. The same as `Split` of
/// adapter-hub/adapters, which wants texts of exactly the sum of the spans.
#[derive(Module, Debug)]
pub struct Split {
    members: Vec<BoxedMethod>,
    #[module(skip)]
    route: Route,
    /// Under which what is made of all members together is kept.
    #[module(skip)]
    together: ParamId,
}

impl Split {
    /// The members, each with the number of tokens that are under it.
    ///
    /// # Panics
    /// If there is no member.
    pub fn new(members: Vec<(BoxedMethod, usize)>) -> Self {
        assert!(!members.is_empty(), "a text is cut between adapters");
        let (members, spans): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        Self { members, route: Route::Spans(spans.into()), together: ParamId::new() }
    }
}

impl Composite for Split {
    fn members(&self) -> &[BoxedMethod] {
        &self.members
    }
    fn members_mut(&mut self) -> &mut [BoxedMethod] {
        &mut self.members
    }
    fn answer<'a, A: Answer>(
        &'a self,
        site: &Site,
        _pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A {
        let key = MemoKey { of: self.together, name: "split", site: Some(site.index) };
        A::routed(self.members.iter().map(of).collect(), &self.route, key)
    }
    fn through(&self, _stage: Stage, _site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        tokens
    }
    fn own_obstacle(&self) -> Option<&'static str> {
        Some("tokens of a text have different adapters")
    }
    fn reads_positions(&self) -> bool {
        true
    }
}
