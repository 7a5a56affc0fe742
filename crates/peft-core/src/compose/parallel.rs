//! Methods side by side on the same texts.

use burn::module::Module;
use burn::tensor::Tensor;

use super::each_member;
use super::per_row::OBSTACLE;
use crate::{
    BoxedMethod, Change, Embedded, Hooks, KeyValue, LinearLayer, Method, NormLayer, PerRow,
    ResidualLayer, ResidualStates, Site,
};

/// Every method on the same texts: the batch is repeated, once for each method, and the outputs
/// come one after another, `[methods · batch, ..]`.
#[derive(Module, Debug)]
pub struct Parallel {
    methods: Vec<BoxedMethod>,
}

impl Parallel {
    /// Runs `methods` side by side.
    pub fn new(methods: Vec<BoxedMethod>) -> Self {
        Self { methods }
    }

    /// The rows of a batch that is repeated already.
    fn rows(&self, batch: usize) -> PerRow {
        let each = batch / self.methods.len();
        let rows: Vec<_> =
            (0..self.methods.len()).flat_map(|m| std::iter::repeat_n(Some(m), each)).collect();
        PerRow::new(self.methods.clone(), &rows)
    }
}

impl Hooks for Parallel {
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.rows(input.dims()[0]).linear(layer, input)
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.rows(input.dims()[0]).norm(layer, input)
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        let count = self.methods.len();
        let Embedded { hidden, mask, segments, shift, continues } = embedded;
        let embedded = Embedded {
            hidden: Tensor::cat(vec![hidden; count], 0),
            mask: mask.map(|mask| Tensor::cat(vec![mask; count], 0)),
            segments: segments.map(|segments| Tensor::cat(vec![segments; count], 0)),
            shift: shift.repeat(count),
            continues,
        };
        self.rows(embedded.hidden.dims()[0]).embed(site, embedded)
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.rows(embedded.hidden.dims()[0]).layers_input(site, embedded)
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        self.rows(hidden.dims()[0]).key_value(site, hidden, states)
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        self.rows(states.output.dims()[0]).residual(layer, states)
    }
    fn reads_hidden_states(&self) -> bool {
        self.methods.iter().any(|method| method.reads_hidden_states())
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        let batch = hidden_states.last().map_or(0, |state| state.dims()[0]);
        self.rows(batch).head_input(hidden_states)
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.rows(hidden.dims()[0]).unembed(site, hidden)
    }
}

impl Method for Parallel {
    fn change(&self, _site: &Site) -> Change {
        Change::default()
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some(OBSTACLE.into())
    }

    fn virtual_tokens(&self) -> usize {
        self.methods.iter().map(Method::virtual_tokens).max().unwrap_or(0)
    }

    each_member!(methods);
}
