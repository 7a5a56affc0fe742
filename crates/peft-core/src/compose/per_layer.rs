//! A method for each layer.

use burn::module::Module;

use super::Composite;
use crate::edit::Answer;
use crate::{BoxedMethod, Hooks, Pass, Site, Stage, Tokens};

/// Another method in each layer, or none: layer groups (S4, Chen et al. 2023, arXiv 2301.01821) and
/// a search's switches (AutoPEFT, Zhou et al. 2023, arXiv 2301.12132).
///
/// What is in no layer (embeddings, the input of the head) has a method of its own, or none. Build
/// each member over [`Base::without`](crate::Base::without) the layers that it does not get, so that
/// it trains nothing there.
#[derive(Module, Debug)]
pub struct PerLayer {
    methods: Vec<BoxedMethod>,
    /// The member of each layer.
    #[module(skip)]
    of_layer: Vec<Option<usize>>,
    /// The member of what is in no layer.
    #[module(skip)]
    elsewhere: Option<usize>,
}

impl PerLayer {
    /// `of_layer[l]` is the method of layer `l`; layers past the end have none. `elsewhere` is the
    /// method of what is in no layer.
    ///
    /// # Panics
    /// If a layer names a method that is not there.
    pub fn new(
        methods: Vec<BoxedMethod>,
        of_layer: Vec<Option<usize>>,
        elsewhere: Option<usize>,
    ) -> Self {
        let named = of_layer.iter().chain([&elsewhere]).flatten().all(|m| *m < methods.len());
        assert!(named, "a layer names one of {} methods: {of_layer:?}", methods.len());
        Self { methods, of_layer, elsewhere }
    }

    fn at(&self, site: &Site) -> Option<&BoxedMethod> {
        let member = match site.layer {
            Some(layer) => *self.of_layer.get(layer)?,
            None => self.elsewhere,
        };
        self.methods.get(member?)
    }
}

impl Composite for PerLayer {
    fn members(&self) -> &[BoxedMethod] {
        &self.methods
    }
    fn members_mut(&mut self) -> &mut [BoxedMethod] {
        &mut self.methods
    }
    fn answer<'a, A: Answer>(
        &'a self,
        site: &Site,
        _pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A {
        self.at(site).map_or_else(A::nothing, of)
    }
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        match self.at(site) {
            Some(method) => method.tokens(stage, site, tokens, pass),
            None => tokens,
        }
    }
}
