//! A method for each row of a batch.

use burn::module::Module;
use burn::tensor::Tensor;

use super::each_member;
use super::rows::{End, Groups, fill};
use crate::{
    BoxedMethod, Change, Embedded, Hooks, KeyValue, LinearLayer, Method, NormLayer, ResidualLayer,
    ResidualStates, Site,
};

/// A batch in which each row names its method, or none: many adapters served over one base.
///
/// Each method sees its own rows only. Where methods lengthen texts by different numbers of
/// positions, shorter rows are filled up and masked. A method includes its head, so that rows of
/// different tasks with as many outputs can share a batch. It is the method of the whole model:
/// what shall be below one of its members belongs into that member, in a [`Stack`](crate::Stack).
#[derive(Module, Debug)]
pub struct PerRow {
    methods: Vec<BoxedMethod>,
    #[module(skip)]
    groups: Groups,
}

impl PerRow {
    /// `rows[i]` is the method of row `i`, or `None` for the base model.
    ///
    /// # Panics
    /// If a row names a method that is not there.
    pub fn new(methods: Vec<BoxedMethod>, rows: &[Option<usize>]) -> Self {
        let named = rows.iter().flatten().all(|method| *method < methods.len());
        assert!(named, "a row names one of {} methods: {rows:?}", methods.len());
        Self { groups: Groups::new(rows, methods.len()), methods }
    }

    /// Applies to each group of rows what its method makes of them.
    fn map<const D: usize>(
        &self,
        input: Tensor<D>,
        of: impl Fn(&dyn Hooks, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let parts = self.groups.split(input);
        let parts = parts.into_iter().map(|(method, part)| of(self.hooks(method), part));
        self.groups.join(parts.collect())
    }

    fn hooks(&self, method: Option<usize>) -> &dyn Hooks {
        method.map_or(&() as &dyn Hooks, |method| &self.methods[method])
    }

    fn embedded(
        &self,
        embedded: Embedded,
        of: impl Fn(&dyn Hooks, Embedded) -> Embedded,
    ) -> Embedded {
        let Embedded { hidden, mask, segments, shift, continues } = embedded;
        let masks = self.groups.split_mask(mask);
        let segments = match segments {
            Some(segments) => self.groups.split(segments.float()).into_iter().map(Some).collect(),
            None => vec![None; self.groups.rows.len()],
        };
        let shifts = self.groups.split_rows(&shift);
        let parts: Vec<Embedded> = self
            .groups
            .split(hidden)
            .into_iter()
            .zip(masks.into_iter().zip(segments.into_iter().zip(shifts)))
            .map(|((method, hidden), (mask, (segments, shift)))| {
                let segments = segments.map(|(_, segments): (_, Tensor<2>)| segments.int());
                of(self.hooks(method), Embedded { hidden, mask, segments, shift, continues })
            })
            .collect();
        let longest = parts.iter().map(|part| part.hidden.dims()[1]).max().unwrap_or(0);
        let masks = parts.iter().map(|part| {
            let [rows, length, _] = part.hidden.dims();
            (part.mask.clone(), rows, length)
        });
        let mask = self.groups.join_mask(masks.collect(), longest, End::Back);
        let shifts = parts.iter().map(|part| (part.shift.clone(), part.hidden.dims()[0]));
        let shift = self.groups.join_rows(shifts.collect());
        let segments: Option<Vec<Tensor<2>>> = parts
            .iter()
            .map(|part| Some(fill(part.segments.clone()?.float(), 1, longest, End::Back)))
            .collect();
        let segments = segments.map(|parts| self.groups.join(parts).int());
        // Filled up at the end, so that positions count as they do for the row alone.
        let hidden = parts.into_iter().map(|part| fill(part.hidden, 1, longest, End::Back));
        Embedded { hidden: self.groups.join(hidden.collect()), mask, segments, shift, continues }
    }
}

impl Hooks for PerRow {
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.map(input, |hooks, input| hooks.linear(layer, input))
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.map(input, |hooks, input| hooks.norm(layer, input))
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.embedded(embedded, |hooks, embedded| hooks.embed(site, embedded))
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.embedded(embedded, |hooks, embedded| hooks.layers_input(site, embedded))
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        let hidden = self.groups.split(hidden.clone());
        let keys = self.groups.split(states.key);
        let values = self.groups.split(states.value);
        let masks = self.groups.split_mask(states.mask);
        let parts: Vec<KeyValue> = hidden
            .into_iter()
            .zip(keys.into_iter().zip(values).zip(masks))
            .map(|((method, hidden), (((_, key), (_, value)), mask))| {
                self.hooks(method).key_value(site, &hidden, KeyValue { key, value, mask })
            })
            .collect();
        let longest = parts.iter().map(|part| part.key.dims()[2]).max().unwrap_or(0);
        let masks = parts.iter().map(|part| {
            let [rows, _, positions, _] = part.key.dims();
            (part.mask.clone(), rows, positions)
        });
        // What is added comes first, so that is where shorter rows are filled up.
        let mask = self.groups.join_mask(masks.collect(), longest, End::Front);
        let filled = |of: fn(&KeyValue) -> Tensor<4>| {
            let parts = parts.iter().map(|part| fill(of(part), 2, longest, End::Front));
            self.groups.join(parts.collect())
        };
        KeyValue {
            key: filled(|part| part.key.clone()),
            value: filled(|part| part.value.clone()),
            mask,
        }
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let inputs = self.groups.split(states.input);
        let outputs = self.groups.split(states.output);
        let residuals = self.groups.split(states.residual);
        let parts: Vec<ResidualStates> = inputs
            .into_iter()
            .zip(outputs.into_iter().zip(residuals))
            .map(|((method, input), ((_, output), (_, residual)))| {
                let states = ResidualStates { input, output, residual };
                // Its own norm, not that of a batch of all rows.
                let hooks = self.hooks(method);
                hooks.residual(&layer.under(hooks), states)
            })
            .collect();
        let joined =
            |of: fn(&ResidualStates) -> Tensor<3>| self.groups.join(parts.iter().map(of).collect());
        ResidualStates {
            input: joined(|part| part.input.clone()),
            output: joined(|part| part.output.clone()),
            residual: joined(|part| part.residual.clone()),
        }
    }
    fn reads_hidden_states(&self) -> bool {
        self.methods.iter().any(|method| method.reads_hidden_states())
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        let states: Vec<_> =
            hidden_states.iter().map(|state| self.groups.split(state.clone())).collect();
        let parts = (0..self.groups.rows.len()).map(|group| {
            let own: Vec<Tensor<3>> = states.iter().map(|state| state[group].1.clone()).collect();
            self.hooks(self.groups.rows[group].0).head_input(&own)
        });
        self.groups.join(parts.collect())
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.map(hidden, |hooks, hidden| hooks.unembed(site, hidden))
    }
}

pub(super) const OBSTACLE: &str = "rows of a batch have different adapters";

impl Method for PerRow {
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
