//! The outputs, row by row and head by head.

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{AttentionInputs, AttentionRow, AttentionSpec, softmax};
use crate::fused::{Array, Operation, Saved, Shared, apply, filled, is_fast, numbers, output};
use crate::matmul::{Panels, Products, Source, Start, Term};
use crate::simd::{Lanes, random::Mask, run};

/// Queries whose weights are held at a time.
pub(super) const QUERIES: usize = 32;

pub(super) fn attention(inputs: AttentionInputs, spec: AttentionSpec) -> Option<Tensor<2>> {
    let AttentionInputs { query, key, value, extra, bias } = inputs;
    let states = [&query, &key, &value].into_iter().chain(&bias);
    if !(states.into_iter().all(is_fast) && extra.iter().flatten().all(is_fast)) {
        return None;
    }
    assert_eq!(spec.heads % spec.key_value_heads, 0, "whole groups of heads");
    assert_eq!(spec.buckets.is_some(), bias.is_some(), "buckets of biases");
    let operation = Attention { spec, has_extra: extra.is_some() };
    let states = [query, key, value].map(Tensor::into_dispatch);
    let extra = extra.into_iter().flatten().map(Tensor::into_dispatch);
    let bias = bias.map(Tensor::into_dispatch);
    Some(apply(operation, states.into_iter().chain(extra).chain(bias)))
}

/// The inputs are `Q`, `K`, `V`, keys and values in front, and biases, if there are any.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) spec: AttentionSpec,
    pub(super) has_extra: bool,
}

/// The inputs as numbers.
#[derive(Clone, Copy)]
pub(super) struct States<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    /// Keys and values in front, and how many there is room for.
    pub(super) extra: Option<[&'a [f32]; 2]>,
    pub(super) room: usize,
    /// `[buckets, heads]`.
    bias: Option<&'a [f32]>,
}

impl<'a> States<'a> {
    pub(super) fn new(arrays: &'a [Array], attention: &Attention) -> Self {
        let extra = attention.has_extra.then(|| [&arrays[3], &arrays[4]]);
        let room = extra.map_or(0, |[key, _]| key.shape()[2]);
        let extra = extra.map(|extra| extra.map(numbers));
        let [query, key, value] = [0, 1, 2].map(|number| numbers(&arrays[number]));
        let bias = attention.bias_input().map(|number| numbers(&arrays[number]));
        Self { query, key, value, extra, room, bias }
    }
}

impl Operation for Attention {
    fn names(&self) -> [&'static str; 2] {
        ["attention", "attention, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let inputs: Vec<Array> = inputs.iter().map(Array::to_contiguous).collect();
        let shape = inputs[0].shape();
        let (tokens, heads) = (shape[0], self.spec.heads);
        assert_eq!(shape[1], heads * self.spec.size, "queries of {heads} heads");
        let states = States::new(&inputs, self);
        let mut sums = Vec::new();
        let all = |out: Shared, sums: Shared| {
            self.each_head(|row, number, head| {
                run(Forward { attention: self, states, row, number, head, out, sums });
            });
        };
        let covered: usize = self.spec.rows.iter().map(|row| row.queries).sum();
        assert_eq!(covered, tokens, "every query is in one row");
        // SAFETY: each query of each head is in one task, which writes its output and its sum.
        let out = unsafe {
            filled(tokens * shape[1], |out| {
                sums = filled(tokens * heads, |sums| all(out, sums));
            })
        };
        (output(out, [tokens, shape[1]]), vec![output(sums, [tokens, heads])])
    }

    fn needs(&self, _input: usize) -> bool {
        true
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        super::backward::backward(self, saved, &gradient, wanted)
    }
}

impl Attention {
    /// Calls `f` for every row and every head of keys, on all cores.
    pub(super) fn each_head(&self, f: impl Fn(AttentionRow, usize, usize) + Sync) {
        let AttentionSpec { rows, key_value_heads, .. } = &self.spec;
        (0..rows.len() * key_value_heads).into_par_iter().with_max_len(1).for_each(|task| {
            let number = task / key_value_heads;
            f(rows[number], number, task % key_value_heads);
        });
    }

    pub(super) fn mask(&self) -> Option<Mask> {
        self.spec.dropout.map(crate::Dropout::mask)
    }

    /// Where the biases are among the inputs.
    pub(super) fn bias_input(&self) -> Option<usize> {
        self.spec.buckets.as_ref().map(|_| if self.has_extra { 5 } else { 3 })
    }

    /// The biases of a head, by distance; none where there are none.
    pub(super) fn biases(&self, states: States<'_>, head: usize) -> Vec<f32> {
        let (Some(buckets), Some(bias)) = (&self.spec.buckets, states.bias) else {
            return Vec::new();
        };
        let heads = self.spec.heads;
        buckets.of_distances.iter().map(|bucket| bias[bucket * heads + head]).collect()
    }

    /// Where the first key of a row is among distances from a query of it.
    pub(super) fn first_distance(&self, row: AttentionRow, query: usize) -> usize {
        let zero = self.spec.buckets.as_ref().map_or(0, |buckets| buckets.zero);
        zero.checked_sub(row.position + query).expect("a bucket for each distance")
    }

    /// The keys of a row and a head, and its values, each `[keys, size]`, one after another.
    pub(super) fn gathered(
        &self,
        states: States<'_>,
        (row, number, head): (AttentionRow, usize, usize),
    ) -> [Vec<f32>; 2] {
        let AttentionSpec { key_value_heads, size, .. } = self.spec;
        let [front_keys, front_values] = states.extra.map_or([&[][..]; 2], |extra| {
            let end = (number * key_value_heads + head + 1) * states.room * size;
            extra.map(|extra| &extra[end - row.extra * size..end])
        });
        [(front_keys, states.key), (front_values, states.value)].map(|(front, text)| {
            let mut found = Vec::with_capacity((row.extra + row.keys) * size);
            found.extend_from_slice(front);
            for key in row.key..row.key + row.keys {
                let from = (key * key_value_heads + head) * size;
                found.extend_from_slice(&text[from..from + size]);
            }
            found
        })
    }
}

/// How many keys a query of a row sees, those in front of the text first.
pub(super) fn seen(row: AttentionRow, query: usize) -> usize {
    match row.sees {
        None => row.extra + row.keys,
        Some(first) => row.extra + row.keys.min(first + query),
    }
}

/// The queries of one row under the heads that share one of keys.
struct Forward<'a> {
    attention: &'a Attention,
    states: States<'a>,
    row: AttentionRow,
    number: usize,
    head: usize,
    out: Shared,
    /// The logarithm of each query's sum of weights.
    sums: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { attention, states, row, number, head, out, sums } = self;
        let AttentionSpec { heads, key_value_heads, size, scale, .. } = attention.spec;
        let (keys, width) = (row.extra + row.keys, heads * size);
        let [key, value] = attention.gathered(states, (row, number, head));
        let key_panels = Panels::scaled(Source::new(&key, [keys, size]).transposed(), scale as f32);
        let value_panels = Panels::new(Source::new(&value, [keys, size]));
        let mask = attention.mask();
        let shared = heads / key_value_heads;
        let mut weights = vec![0.0; QUERIES * keys];
        for head in head * shared..(head + 1) * shared {
            let mut first = 0;
            let biases = attention.biases(states, head);
            while first < row.queries {
                let count = QUERIES.min(row.queries - first);
                let query = &states.query[(row.query + first) * width + head * size..];
                // The last query of the block sees the most keys.
                let most = seen(row, first + count - 1);
                scores(simd, query, width, &key_panels, [count, keys, most], &mut weights);
                for place in 0..count {
                    let visible = seen(row, first + place);
                    assert!(visible > 0, "a query sees a key");
                    let weights = &mut weights[place * keys..place * keys + most];
                    if !biases.is_empty() {
                        let from = attention.first_distance(row, first + place);
                        add(simd, &mut weights[..visible], &biases[from..from + visible]);
                    }
                    let sum = softmax(simd, weights, visible);
                    let token = row.query + first + place;
                    // SAFETY: this query of this head is in this task alone.
                    unsafe { sums.part(token * heads + head..token * heads + head + 1)[0] = sum };
                    if let Some(mask) = mask {
                        mask.apply(simd, token * heads + head, weights);
                    }
                }
                let term = Term {
                    left: &weights,
                    row: keys,
                    column: 1,
                    panels: &value_panels,
                    depth: most,
                };
                let products = Products { terms: &[term], start: Start::Zero };
                let from = (row.query + first) * width + head * size;
                // SAFETY: the columns of this head of these queries are this task's.
                unsafe {
                    let last = from + (count - 1) * width + size;
                    let out = out.pointer(from..last);
                    products.run(simd, count, 0..value_panels.count(), out, width);
                }
                first += count;
            }
        }
    }
}

/// `s Q Kᵀ` of some queries, as rows of `keys` numbers of which the first `most` are written.
#[inline(always)]
pub(super) fn scores<S: Simd>(
    simd: S,
    query: &[f32],
    distance: usize,
    panels: &Panels,
    [count, keys, most]: [usize; 3],
    out: &mut [f32],
) {
    assert!(count * keys <= out.len(), "room for {count} queries");
    let left = Term { left: query, row: distance, column: 1, panels, depth: panels.depth() };
    let products = Products { terms: &[left], start: Start::Zero };
    let panels = 0..most.div_ceil(panels.width());
    // SAFETY: `out` has as many rows of as many columns.
    unsafe { products.run(simd, count, panels, out.as_mut_ptr(), keys) };
}

/// `to + more`, in the place of `to`.
#[inline(always)]
pub(super) fn add<S: Simd>(simd: S, to: &mut [f32], more: &[f32]) {
    for (to, more) in to.chunks_mut(S::F32_LANES).zip(more.chunks(S::F32_LANES)) {
        (Lanes::load(simd, to) + Lanes::load(simd, more)).store(to);
    }
}
