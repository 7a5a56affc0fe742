//! Methods applied one on another.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{each_member, members_for_rows};
use crate::{
    BoxedMethod, Change, Embedded, FrozenWeight, Hooks, KeyValue, LinearLayer, Method, NormLayer,
    ResidualLayer, ResidualStates, Site,
};

/// Methods applied one on another: each sees the model as the methods before it leave it.
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

    fn chain(&self) -> Chain<'_> {
        Chain(&self.methods)
    }
}

/// A prefix of a stack.
#[derive(Debug, Clone, Copy)]
struct Chain<'a>(&'a [BoxedMethod]);

impl<'a> Chain<'a> {
    fn split(self) -> Option<(&'a BoxedMethod, Chain<'a>)> {
        self.0.split_last().map(|(top, rest)| (top, Chain(rest)))
    }
}

impl Hooks for Chain<'_> {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let (top, rest) = self.split()?;
        top.weight(&layer.with(&rest)).or_else(|| rest.weight(layer))
    }
    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        // The last one merged comes off first.
        let (top, rest) = self.split()?;
        match top.unmerged_weight(layer) {
            Some(weight) => {
                let below = FrozenWeight::from(weight.clone());
                let layer = LinearLayer::new(layer.site(), &below, None);
                Some(rest.unmerged_weight(&layer).unwrap_or(weight))
            }
            None => rest.unmerged_weight(layer),
        }
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        let (top, rest) = self.split()?;
        top.bias(&layer.with(&rest)).or_else(|| rest.bias(layer))
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.split() {
            Some((top, rest)) => top.linear(&layer.with(&rest), input),
            None => layer.forward(input),
        }
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        let (top, rest) = self.split()?;
        top.norm_gain(&layer.with(&rest)).or_else(|| rest.norm_gain(layer))
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        let (top, rest) = self.split()?;
        top.norm_bias(&layer.with(&rest)).or_else(|| rest.norm_bias(layer))
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.split() {
            Some((top, rest)) => top.norm(&layer.with(&rest), input),
            None => layer.forward(input),
        }
    }
    fn embedding(&self, site: &Site, table: FrozenWeight) -> FrozenWeight {
        self.0.iter().fold(table, |table, method| method.embedding(site, table))
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.0.iter().fold(embedded, |embedded, method| method.embed(site, embedded))
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.0.iter().fold(embedded, |embedded, method| method.layers_input(site, embedded))
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        self.0.iter().fold(states, |states, method| method.key_value(site, hidden, states))
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        self.0.iter().fold(states, |states, method| method.residual(layer, states))
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        match self.split() {
            Some((top, rest)) => top.residual_input(layer, &rest.residual(layer, states.clone())),
            None => layer.forward(states.clone()),
        }
    }
    fn reads_hidden_states(&self) -> bool {
        self.0.iter().any(|method| method.reads_hidden_states())
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        // Each method replaces the last state; the ones above see what it made of it.
        let mut states = hidden_states.to_vec();
        for method in self.0 {
            let last = method.head_input(&states);
            states.pop();
            states.push(last);
        }
        states.pop().expect("a model has at least one hidden state")
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        // The last embedding is undone first.
        self.0.iter().rev().fold(hidden, |hidden, method| method.unembed(site, hidden))
    }
}

impl Hooks for Stack {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.chain().weight(layer)
    }
    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.chain().unmerged_weight(layer)
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        self.chain().bias(layer)
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.chain().linear(layer, input)
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.chain().norm_gain(layer)
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.chain().norm_bias(layer)
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.chain().norm(layer, input)
    }
    fn embedding(&self, site: &Site, table: FrozenWeight) -> FrozenWeight {
        self.chain().embedding(site, table)
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.chain().embed(site, embedded)
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.chain().layers_input(site, embedded)
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        self.chain().key_value(site, hidden, states)
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        self.chain().residual(layer, states)
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        self.chain().residual_input(layer, states)
    }
    fn reads_hidden_states(&self) -> bool {
        self.chain().reads_hidden_states()
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        self.chain().head_input(hidden_states)
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.chain().unembed(site, hidden)
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        let methods = members_for_rows(&self.methods, rows)?;
        Some(BoxedMethod::new(Self { methods }))
    }
}

impl Method for Stack {
    fn change(&self, site: &Site) -> Change {
        Change::together(site, self.methods.iter().map(|method| method.change(site)))
    }

    fn merge_obstacle(&self) -> Option<String> {
        self.methods.iter().find_map(|method| method.merge_obstacle())
    }

    fn virtual_tokens(&self) -> usize {
        self.methods.iter().map(Method::virtual_tokens).sum()
    }

    each_member!(methods);
}
