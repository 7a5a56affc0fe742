//! The mean of what methods compute.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{each_member, members_for_rows};
use crate::{
    BoxedMethod, Change, Embedded, Hooks, KeyValue, LinearLayer, Method, NormLayer, ResidualLayer,
    ResidualStates, Site,
};

/// The weighted mean of what methods compute, each over the same model: at every hook
/// `Σ wₙ fₙ(x)`, with `Σ wₙ = 1`.
///
/// Averaged methods must not change how long a text is. For methods that change weights it is the
/// mean of their weights, and can be merged.
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

    fn mean<const D: usize>(&self, of: impl Fn(&BoxedMethod) -> Tensor<D>) -> Tensor<D> {
        let terms = self.methods.iter().zip(&self.weights).map(|(m, weight)| of(m) * *weight);
        terms.reduce(|sum, term| sum + term).expect("an average has members")
    }

    /// The mean of values that a member may leave as they are; `None` if all do.
    fn mean_change<const D: usize>(
        &self,
        of: impl Fn(&BoxedMethod) -> Option<Tensor<D>>,
        unchanged: impl Fn() -> Tensor<D>,
    ) -> Option<Tensor<D>> {
        let values: Vec<_> = self.methods.iter().map(of).collect();
        values.iter().any(Option::is_some).then(|| {
            let values = values.into_iter().zip(&self.weights);
            let terms = values.map(|(v, weight)| v.unwrap_or_else(&unchanged) * *weight);
            terms.reduce(|sum, term| sum + term).expect("an average has members")
        })
    }
}

/// Panics unless every member left the length as the others did.
fn same_length<const D: usize>(parts: &[Tensor<D>], axis: usize) {
    let first = parts[0].dims()[axis];
    assert!(
        parts.iter().all(|part| part.dims()[axis] == first),
        "methods of an average lengthen a text by different numbers of positions"
    );
}

impl Hooks for Average {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.mean_change(|m| m.weight(layer), || layer.weight())
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        let unchanged = || {
            layer
                .bias()
                .unwrap_or_else(|| Tensor::zeros([layer.site().d_out()], &layer.weight().device()))
        };
        self.mean_change(|m| m.bias(layer), unchanged)
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.mean(|m| m.linear(layer, input.clone()))
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.mean_change(|m| m.norm_gain(layer), || layer.gain())
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        let unchanged = || layer.bias().unwrap_or_else(|| layer.gain().zeros_like());
        self.mean_change(|m| m.norm_bias(layer), unchanged)
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.mean(|m| m.norm(layer, input.clone()))
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.mean_embedded(embedded, |m, embedded| m.embed(site, embedded))
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.mean_embedded(embedded, |m, embedded| m.layers_input(site, embedded))
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        let parts: Vec<KeyValue> =
            self.methods.iter().map(|m| m.key_value(site, hidden, states.clone())).collect();
        let keys: Vec<_> = parts.iter().map(|part| part.key.clone()).collect();
        let values: Vec<_> = parts.iter().map(|part| part.value.clone()).collect();
        same_length(&keys, 2);
        let first = parts.into_iter().next().expect("an average has members");
        KeyValue { key: self.sum(keys), value: self.sum(values), ..first }
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let output = self.mean(|m| {
            // A member may also change what is added; only the sum counts.
            let after = m.residual(layer, states.clone());
            after.output + after.residual - states.residual.clone()
        });
        ResidualStates { output, ..states }
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        self.mean(|m| m.residual_input(layer, states))
    }
    fn reads_hidden_states(&self) -> bool {
        self.methods.iter().any(|m| m.reads_hidden_states())
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        self.mean(|m| m.head_input(hidden_states))
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.mean(|m| m.unembed(site, hidden.clone()))
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        let methods = members_for_rows(&self.methods, rows)?;
        Some(BoxedMethod::new(Self { methods, weights: self.weights.clone() }))
    }
}

impl Average {
    fn mean_embedded(
        &self,
        embedded: Embedded,
        of: impl Fn(&BoxedMethod, Embedded) -> Embedded,
    ) -> Embedded {
        let parts: Vec<Embedded> = self.methods.iter().map(|m| of(m, embedded.clone())).collect();
        let hidden: Vec<_> = parts.iter().map(|part| part.hidden.clone()).collect();
        same_length(&hidden, 1);
        let first = parts.into_iter().next().expect("an average has members");
        Embedded { hidden: self.sum(hidden), ..first }
    }

    fn sum<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D> {
        let terms = parts.into_iter().zip(&self.weights).map(|(part, weight)| part * *weight);
        terms.reduce(|sum, term| sum + term).expect("an average has members")
    }
}

impl Method for Average {
    fn change(&self, site: &Site) -> Change {
        Change::together(site, self.methods.iter().map(|method| method.change(site)))
    }

    fn merge_obstacle(&self) -> Option<String> {
        self.methods.iter().find_map(|method| method.merge_obstacle())
    }

    fn virtual_tokens(&self) -> usize {
        self.methods.iter().map(Method::virtual_tokens).max().unwrap_or(0)
    }

    each_member!(methods);
}
