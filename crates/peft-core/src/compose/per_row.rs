//! A method for each row of a batch.

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::each_member;
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
        let Embedded { hidden, mask, segments, shift } = embedded;
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
                of(self.hooks(method), Embedded { hidden, mask, segments, shift })
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
        Embedded { hidden: self.groups.join(hidden.collect()), mask, segments, shift }
    }
}

/// Where rows are filled up.
#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

/// Fills an axis up with zeros.
fn fill<const D: usize>(tensor: Tensor<D>, axis: usize, length: usize, end: End) -> Tensor<D> {
    let mut shape = tensor.dims();
    if shape[axis] == length {
        return tensor;
    }
    shape[axis] = length - shape[axis];
    let zeros = Tensor::zeros(shape, &tensor.device());
    match end {
        End::Front => Tensor::cat(vec![zeros, tensor], axis),
        End::Back => Tensor::cat(vec![tensor, zeros], axis),
    }
}

/// Which rows belong to which method.
#[derive(Debug, Clone)]
struct Groups {
    /// Each method with its rows.
    rows: Vec<(Option<usize>, Vec<i64>)>,
    /// Where each row of the batch lies once the groups are put one after another; empty where
    /// they lie so already.
    back: Vec<i64>,
}

impl Groups {
    fn new(rows: &[Option<usize>], methods: usize) -> Self {
        let all = std::iter::once(None).chain((0..methods).map(Some));
        let of = |method| {
            let own = rows.iter().enumerate().filter(|(_, m)| **m == method);
            (method, own.map(|(row, _)| row as i64).collect::<Vec<_>>())
        };
        let mut groups: Vec<_> = all.map(of).filter(|(_, rows)| !rows.is_empty()).collect();
        groups.sort_by_key(|(_, rows)| rows[0]);
        let order: Vec<i64> = groups.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let mut back = vec![0; order.len()];
        for (place, row) in order.iter().enumerate() {
            back[*row as usize] = place as i64;
        }
        let in_order = back.iter().enumerate().all(|(row, place)| row as i64 == *place);
        Self { rows: groups, back: if in_order { Vec::new() } else { back } }
    }

    fn count(&self) -> usize {
        self.rows.iter().map(|(_, rows)| rows.len()).sum()
    }

    fn split<const D: usize>(&self, tensor: Tensor<D>) -> Vec<(Option<usize>, Tensor<D>)> {
        let (batch, count) = (tensor.dims()[0], self.count());
        assert_eq!(batch, count, "a batch of {batch} rows, of which {count} name their adapter");
        let take = |(method, rows): &(Option<usize>, Vec<i64>)| {
            let part = if self.back.is_empty() {
                tensor.clone().narrow(0, rows[0] as usize, rows.len())
            } else {
                tensor.clone().select(0, indices(rows, &tensor))
            };
            (*method, part)
        };
        self.rows.iter().map(take).collect()
    }

    fn join<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D> {
        let joined = if parts.len() == 1 {
            parts.into_iter().next().expect("one part")
        } else {
            Tensor::cat(parts, 0)
        };
        if self.back.is_empty() {
            return joined;
        }
        let order = indices(&self.back, &joined);
        joined.select(0, order)
    }

    fn split_mask(&self, mask: Option<Tensor<2, Bool>>) -> Vec<Option<Tensor<2, Bool>>> {
        match mask {
            None => vec![None; self.rows.len()],
            Some(mask) => self
                .split(mask.float())
                .into_iter()
                .map(|(_, part)| Some(part.greater_elem(0.5)))
                .collect(),
        }
    }

    /// A number for each row, or none at all, by group.
    fn split_rows(&self, values: &[usize]) -> Vec<Vec<usize>> {
        let of = |rows: &Vec<i64>| match values {
            [] => Vec::new(),
            _ => rows.iter().map(|row| values[*row as usize]).collect(),
        };
        self.rows.iter().map(|(_, rows)| of(rows)).collect()
    }

    /// Numbers of the groups' rows, 0 where a group has none, in the order of the batch.
    fn join_rows(&self, parts: Vec<(Vec<usize>, usize)>) -> Vec<usize> {
        if parts.iter().all(|(values, _)| values.is_empty()) {
            return Vec::new();
        }
        let filled = parts.into_iter().flat_map(|(mut values, rows)| {
            values.resize(rows, 0);
            values
        });
        let joined: Vec<usize> = filled.collect();
        match self.back.is_empty() {
            true => joined,
            false => self.back.iter().map(|place| joined[*place as usize]).collect(),
        }
    }

    /// The mask of parts of `(mask, rows, length)`, filled up to `longest`.
    fn join_mask(
        &self,
        parts: Vec<(Option<Tensor<2, Bool>>, usize, usize)>,
        longest: usize,
        end: End,
    ) -> Option<Tensor<2, Bool>> {
        if parts.iter().all(|(mask, _, length)| mask.is_none() && *length == longest) {
            return None;
        }
        let device = parts.iter().find_map(|(mask, ..)| mask.as_ref().map(|mask| mask.device()));
        let device = device.unwrap_or_default();
        let parts = parts.into_iter().map(|(mask, rows, length)| {
            let mask = match mask {
                Some(mask) => mask.float(),
                None => Tensor::ones([rows, length], &device),
            };
            fill(mask, 1, longest, end)
        });
        Some(self.join(parts.collect()).greater_elem(0.5))
    }
}

fn indices<const D: usize>(rows: &[i64], like: &Tensor<D>) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(rows), &like.device().without_autodiff())
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

const OBSTACLE: &str = "rows of a batch have different adapters";

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
        let Embedded { hidden, mask, segments, shift } = embedded;
        let embedded = Embedded {
            hidden: Tensor::cat(vec![hidden; count], 0),
            mask: mask.map(|mask| Tensor::cat(vec![mask; count], 0)),
            segments: segments.map(|segments| Tensor::cat(vec![segments; count], 0)),
            shift: shift.repeat(count),
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
