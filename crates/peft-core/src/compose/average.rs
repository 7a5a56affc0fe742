//! The mean of what methods do.

use burn::module::Module;

use super::Composite;
use crate::edit::Answer;
use crate::{BoxedMethod, Hooks, Pass, Site, Stage, Tokens};

/// The weighted mean of what methods do, each over the same model: at every hook `Σ wₙ fₙ(x)`, with
/// `Σ wₙ = 1`.
///
/// Averaged methods must not lengthen a text; that is refused where adapters are put together. For
/// methods that change weights it is the mean of their weights, and can be merged.
#[derive(Module, Debug)]
pub struct Average {
    methods: Vec<BoxedMethod>,
    #[module(skip)]
    weights: Vec<f64>,
}

impl Average {
    /// The mean of `methods`, each with its weight; weights are divided by their sum.
    ///
    /// # Panics
    /// If there is no method, or the weights do not have a positive sum.
    pub fn new(methods: Vec<(BoxedMethod, f64)>) -> Self {
        let (methods, weights): (Vec<_>, Vec<_>) = methods.into_iter().unzip();
        let sum: f64 = weights.iter().sum();
        assert!(sum > 0.0, "weights of an average must have a positive sum, not {sum}");
        Self { methods, weights: weights.into_iter().map(|weight| weight / sum).collect() }
    }
}

impl Composite for Average {
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
        let members = self.methods.iter().zip(&self.weights);
        A::averaged(members.map(|(method, weight)| (*weight, of(method))).collect())
    }
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        let mut parts = self.methods.iter().zip(&self.weights).map(|(method, weight)| {
            let part = method.tokens(stage, site, tokens.clone(), pass);
            Tokens { hidden: part.hidden * *weight, ..part }
        });
        let first = parts.next().expect("an average has members");
        parts.fold(first, |sum, part| {
            let alike = sum.rows.tokens() == part.rows.tokens();
            assert!(alike, "texts that are lengthened have no mean; this is refused before");
            Tokens { hidden: sum.hidden + part.hidden, ..sum }
        })
    }
}
