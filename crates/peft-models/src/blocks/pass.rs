//! What a forward pass carries through the blocks.

use burn::tensor::{Distribution, Tensor};
use peft_core::{BoxedMethod, Hooks};

use crate::Cache;

/// One forward pass: under which method, whether dropout acts, and what it goes on from.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The method; `&()` is the base model.
    pub hooks: &'a dyn Hooks,
    /// Whether the base's own dropout acts.
    pub training: bool,
    /// What a decoder goes on from, and adds to.
    pub cache: Option<&'a Cache>,
}

impl<'a> Pass<'a> {
    /// A pass without dropout.
    pub fn inference(hooks: &'a dyn Hooks) -> Self {
        Self { hooks, training: false, cache: None }
    }

    /// A pass with the base's own dropout.
    pub fn training(hooks: &'a dyn Hooks) -> Self {
        Self { hooks, training: true, cache: None }
    }

    /// A pass that goes on from the tokens in `cache`, and adds its own.
    pub fn with_cache(self, cache: &'a Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// The method for the rows that the pass goes on with, where it is not the method itself.
    pub(crate) fn method_of_rows(&self) -> Option<BoxedMethod> {
        self.cache.and_then(|cache| cache.method(self.hooks))
    }

    /// The same pass under another method, if there is one.
    pub(crate) fn under<'b>(self, method: Option<&'b BoxedMethod>) -> Pass<'b>
    where
        'a: 'b,
    {
        match method {
            Some(method) => Pass { hooks: method, ..self },
            None => self,
        }
    }

    /// Sets each value to zero with probability `p` and scales the others by `1 / (1 - p)`.
    ///
    /// The base is on a device without autodiff, where Burn's `Dropout` would never act.
    pub(crate) fn dropout<const D: usize>(&self, x: Tensor<D>, p: f64) -> Tensor<D> {
        if !self.training || p == 0.0 {
            return x;
        }
        let keep = 1.0 - p;
        let mask = Tensor::random(
            x.shape(),
            Distribution::Bernoulli(keep),
            &x.device().without_autodiff(),
        );
        x * (mask / keep)
    }
}
