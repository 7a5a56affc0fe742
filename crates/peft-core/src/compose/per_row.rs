//! A method for each row of a batch.

use std::borrow::Cow;

use burn::module::Module;
use burn::tensor::Tensor;

use super::each_member;
use super::rows::{End, Groups, fill};
use crate::{
    BoxedMethod, Change, Embedded, Hooks, KeyValue, LinearLayer, Method, NormLayer, ResidualLayer,
    ResidualStates, Site,
};

/// A batch in which each row names its method, or none: many adapters served over one base. Or
/// every method on the same texts, [side by side](Self::side_by_side).
///
/// Each method sees its own rows only. Where methods lengthen texts by different numbers of
/// positions, shorter rows are filled up and masked. A method includes its head, so that rows of
/// different tasks with as many outputs can share a batch. It is the method of the whole model:
/// what shall be below one of its members belongs into that member, in a [`Stack`](crate::Stack).
#[derive(Module, Debug)]
pub struct PerRow {
    methods: Vec<BoxedMethod>,
    /// `None` where each method has an equal share of the batch, one after another.
    #[module(skip)]
    groups: Option<Groups>,
}

impl PerRow {
    /// `rows[i]` is the method of row `i`, or `None` for the base model.
    ///
    /// # Panics
    /// If a row names a method that is not there.
    pub fn new(methods: Vec<BoxedMethod>, rows: &[Option<usize>]) -> Self {
        let named = rows.iter().flatten().all(|method| *method < methods.len());
        assert!(named, "a row names one of {} methods: {rows:?}", methods.len());
        Self { groups: Some(Groups::new(rows, methods.len())), methods }
    }

    /// Every method on the same texts: the batch is repeated, once for each method, and the outputs
    /// come one after another, `[methods · batch, ..]`.
    pub fn side_by_side(methods: Vec<BoxedMethod>) -> Self {
        Self { methods, groups: None }
    }

    /// The groups in a batch of so many rows.
    fn groups(&self, batch: usize) -> Cow<'_, Groups> {
        match &self.groups {
            Some(groups) => Cow::Borrowed(groups),
            None => {
                let count = self.methods.len();
                let share = |method| std::iter::repeat_n(Some(method), batch / count);
                Cow::Owned(Groups::new(&(0..count).flat_map(share).collect::<Vec<_>>(), count))
            }
        }
    }

    /// Applies to each group of rows what its method makes of them.
    fn map<const D: usize>(
        &self,
        input: Tensor<D>,
        of: impl Fn(&dyn Hooks, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let groups = self.groups(input.dims()[0]);
        let parts = groups.split(input);
        let parts = parts.into_iter().map(|(method, part)| of(self.hooks(method), part));
        groups.join(parts.collect())
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
        let groups = self.groups(hidden.dims()[0]);
        let masks = groups.split_mask(mask);
        let segments = match segments {
            Some(segments) => groups.split(segments.float()).into_iter().map(Some).collect(),
            None => vec![None; groups.rows.len()],
        };
        let shifts = groups.split_rows(&shift);
        let parts: Vec<Embedded> = groups
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
        let mask = groups.join_mask(masks.collect(), longest, End::Back);
        let shifts = parts.iter().map(|part| (part.shift.clone(), part.hidden.dims()[0]));
        let shift = groups.join_rows(shifts.collect());
        let segments: Option<Vec<Tensor<2>>> = parts
            .iter()
            .map(|part| Some(fill(part.segments.clone()?.float(), 1, longest, End::Back)))
            .collect();
        let segments = segments.map(|parts| groups.join(parts).int());
        // Filled up at the end, so that positions count as they do for the row alone.
        let hidden = parts.into_iter().map(|part| fill(part.hidden, 1, longest, End::Back));
        Embedded { hidden: groups.join(hidden.collect()), mask, segments, shift, continues }
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
        let embedded = match self.groups {
            Some(_) => embedded,
            None => repeated(embedded, self.methods.len()),
        };
        self.embedded(embedded, |hooks, embedded| hooks.embed(site, embedded))
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.embedded(embedded, |hooks, embedded| hooks.layers_input(site, embedded))
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        let groups = self.groups(hidden.dims()[0]);
        let hidden = groups.split(hidden.clone());
        let keys = groups.split(states.key);
        let values = groups.split(states.value);
        let masks = groups.split_mask(states.mask);
        let parts: Vec<KeyValue> = hidden
            .into_iter()
            .zip(keys.into_iter().zip(values).zip(masks))
            .map(|((method, hidden), (((_, key), (_, value)), mask))| {
                self.hooks(method).key_value(site, &hidden, KeyValue::new(key, value, mask))
            })
            .collect();
        let longest = parts.iter().map(|part| part.key.dims()[2]).max().unwrap_or(0);
        let masks = parts.iter().map(|part| {
            let [rows, _, positions, _] = part.key.dims();
            (part.mask.clone(), rows, positions)
        });
        // What is added comes first, so that is where shorter rows are filled up.
        let mask = groups.join_mask(masks.collect(), longest, End::Front);
        let filled = parts.iter().map(|part| {
            let [rows, _, positions, _] = part.key.dims();
            let mut filled = part.filled.clone();
            if positions < longest {
                filled.resize(rows, 0);
                filled.iter_mut().for_each(|filled| *filled += longest - positions);
            }
            (filled, rows)
        });
        let filled = groups.join_rows(filled.collect());
        let full = |of: fn(&KeyValue) -> Tensor<4>| {
            let parts = parts.iter().map(|part| fill(of(part), 2, longest, End::Front));
            groups.join(parts.collect())
        };
        let (key, value) = (full(|part| part.key.clone()), full(|part| part.value.clone()));
        KeyValue { key, value, mask, filled }
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let groups = self.groups(states.output.dims()[0]);
        let inputs = groups.split(states.input);
        let outputs = groups.split(states.output);
        let residuals = groups.split(states.residual);
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
            |of: fn(&ResidualStates) -> Tensor<3>| groups.join(parts.iter().map(of).collect());
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
        let groups = self.groups(hidden_states.last().map_or(0, |state| state.dims()[0]));
        let states: Vec<_> =
            hidden_states.iter().map(|state| groups.split(state.clone())).collect();
        let parts = (0..groups.rows.len()).map(|group| {
            let own: Vec<Tensor<3>> = states.iter().map(|state| state[group].1.clone()).collect();
            self.hooks(groups.rows[group].0).head_input(&own)
        });
        groups.join(parts.collect())
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.map(hidden, |hooks, hidden| hooks.unembed(site, hidden))
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        // Side by side, every row is under every method.
        let groups = self.groups.as_ref()?;
        let named: Vec<(Option<usize>, usize)> = rows.iter().map(|row| groups.of(*row)).collect();
        let members = self.methods.iter().enumerate().map(|(member, method)| {
            let own = named.iter().filter(|(named, _)| *named == Some(member));
            let own: Vec<usize> = own.map(|(_, row)| *row).collect();
            // A member may tell its own rows apart.
            method.for_rows(&own).unwrap_or_else(|| method.clone())
        });
        let named: Vec<Option<usize>> = named.iter().map(|(method, _)| *method).collect();
        Some(BoxedMethod::new(Self::new(members.collect(), &named)))
    }
}

/// The same texts once for each method.
fn repeated(embedded: Embedded, times: usize) -> Embedded {
    let Embedded { hidden, mask, segments, shift, continues } = embedded;
    Embedded {
        hidden: Tensor::cat(vec![hidden; times], 0),
        mask: mask.map(|mask| Tensor::cat(vec![mask; times], 0)),
        segments: segments.map(|segments| Tensor::cat(vec![segments; times], 0)),
        shift: shift.repeat(times),
        continues,
    }
}

impl Method for PerRow {
    fn change(&self, _site: &Site) -> Change {
        Change::default()
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("rows of a batch have different adapters".into())
    }

    fn virtual_tokens(&self) -> usize {
        self.methods.iter().map(Method::virtual_tokens).max().unwrap_or(0)
    }

    each_member!(methods);
}
