//! The gradients: weights are computed again from the logarithms of their sums.

use burn::backend::TensorMetadata;
use pulp::{Simd, WithSimd};

use super::forward::{Attention, QUERIES, States, scores, seen};
use super::{AttentionRow, AttentionSpec};
use crate::fused::{Array, Saved, Shared, filled, numbers};
use crate::matmul::{Panels, Products, Source, Start, Term, transposed_sum};
use crate::simd::{Lanes, exp, run};
use burn::tensor::TensorData;

/// The gradients of all inputs.
pub(super) fn backward(
    attention: &Attention,
    saved: &Saved,
    gradient: &Array,
    wanted: &[bool],
) -> Vec<Option<Array>> {
    let arrays: Vec<Array> =
        (0..wanted.len()).map(|number| saved.input(number).to_contiguous()).collect();
    let gradient = gradient.to_contiguous();
    let sums = saved.values[0].to_contiguous();
    let states = States::new(&arrays);
    let shapes: Vec<_> = arrays.iter().map(TensorMetadata::shape).collect();
    let room = |number: usize| shapes.get(number).map_or(0, |shape| shape.num_elements());
    let all = |out: [Shared; 5]| {
        attention.each_head(|row, number, head| {
            let (gradient, sums) = (numbers(&gradient), numbers(&sums));
            run(Backward { attention, states, gradient, sums, row, number, head, out });
        });
    };
    let mut found: [Vec<f32>; 5] = Default::default();
    let [query, key, value, extra_key, extra_value] = &mut found;
    // SAFETY: each query of each head is in one row; keys that are in none are zeros beforehand, and
    // the rows of keys do not overlap.
    unsafe {
        // Keys that no row has, such as padding, and places in front that a row does not use.
        *key = vec![0.0; room(1)];
        *value = vec![0.0; room(2)];
        *extra_key = vec![0.0; room(3)];
        *extra_value = vec![0.0; room(4)];
        let others = [key, value, extra_key, extra_value].map(|values| Shared::of(values));
        *query = filled(room(0), |query| {
            let [key, value, extra_key, extra_value] = others;
            all([query, key, value, extra_key, extra_value]);
        });
    }
    let gradients = found.into_iter().zip(shapes).zip(wanted);
    gradients
        .map(|((values, shape), wanted)| {
            wanted.then(|| Array::from_data(TensorData::new(values, shape)))
        })
        .collect()
}

struct Backward<'a> {
    attention: &'a Attention,
    states: States<'a>,
    gradient: &'a [f32],
    sums: &'a [f32],
    row: AttentionRow,
    number: usize,
    head: usize,
    /// Of queries, keys, values, keys in front and values in front.
    out: [Shared; 5],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { attention, states, gradient, sums, row, number, head, out } = self;
        let AttentionSpec { heads, key_value_heads, size, scale, .. } = attention.spec;
        let (keys, width) = (row.extra + row.keys, heads * size);
        let scale = scale as f32;
        let [key, value] = attention.gathered(states, (row, number, head));
        let of_key = Source::new(&key, [keys, size]);
        let across = Panels::scaled(of_key.transposed(), scale);
        let along = Panels::scaled(of_key, scale);
        let value_across = Panels::new(Source::new(&value, [keys, size]).transposed());
        let mask = attention.mask();
        let shared = heads / key_value_heads;
        let [mut weights, mut slopes, mut factors] =
            [QUERIES * keys, QUERIES * keys, keys].map(|len| vec![0.0; len]);
        let [mut of_keys, mut of_values] = [keys * size; 2].map(|len| vec![0.0; len]);
        let [mut queries, mut above] = [QUERIES * size; 2].map(|len| vec![0.0; len]);
        for head in head * shared..(head + 1) * shared {
            let mut first = 0;
            while first < row.queries {
                let count = QUERIES.min(row.queries - first);
                let from = (row.query + first) * width + head * size;
                let most = seen(row, first + count - 1);
                let shape = [count, keys, most];
                scores(simd, &states.query[from..], width, &across, shape, &mut weights);
                scores(simd, &gradient[from..], width, &value_across, shape, &mut slopes);
                for place in 0..count {
                    let number = (row.query + first + place) * heads + head;
                    let line = place * keys..place * keys + most;
                    let (weights, slopes) = (&mut weights[line.clone()], &mut slopes[line]);
                    if let Some(mask) = mask {
                        mask.write(simd, number, &mut factors[..most]);
                    }
                    let factors = mask.is_some().then_some(&factors[..most]);
                    let visible = seen(row, first + place);
                    of_softmax(simd, weights, slopes, factors, visible, sums[number]);
                }
                for place in 0..count {
                    let from = from + place * width;
                    let line = place * size..(place + 1) * size;
                    queries[line.clone()].copy_from_slice(&states.query[from..from + size]);
                    above[line].copy_from_slice(&gradient[from..from + size]);
                }
                for ends in [&mut weights, &mut slopes] {
                    for line in ends.chunks_mut(keys).take(count) {
                        line[most..].fill(0.0);
                    }
                }
                let shape = [count, keys, size];
                transposed_sum(simd, &slopes, &queries, shape, &mut of_keys);
                transposed_sum(simd, &weights, &above, shape, &mut of_values);
                let term =
                    Term { left: &slopes, row: keys, column: 1, panels: &along, depth: most };
                let products = Products { terms: &[term], start: Start::Zero };
                // SAFETY: the columns of this head of these queries are this task's.
                unsafe {
                    let out = out[0].pointer(from..from + (count - 1) * width + size);
                    products.run(simd, count, 0..along.count(), out, width);
                }
                first += count;
            }
        }
        of_keys.iter_mut().for_each(|value| *value *= scale);
        let back = |values: &[f32], extra: Shared, text: Shared| {
            let (front, own) = values.split_at(row.extra * size);
            if !front.is_empty() {
                let end = (number * key_value_heads + self.head + 1) * states.room * size;
                // SAFETY: this row's places in front are this task's.
                unsafe { extra.part(end - front.len()..end).copy_from_slice(front) };
            }
            for (key, values) in own.chunks(size).enumerate() {
                let from = ((row.key + key) * key_value_heads + self.head) * size;
                // SAFETY: the keys of this row and head are this task's.
                unsafe { text.part(from..from + size).copy_from_slice(values) };
            }
        };
        back(&of_keys, out[3], out[1]);
        back(&of_values, out[4], out[2]);
    }
}

/// Scores as dropped weights, and the gradients of those as the gradients of the scores.
#[inline(always)]
fn of_softmax<S: Simd>(
    simd: S,
    weights: &mut [f32],
    slopes: &mut [f32],
    factors: Option<&[f32]>,
    visible: usize,
    sum: f32,
) {
    let lanes = S::F32_LANES;
    weights[visible..].fill(0.0);
    slopes[visible..].fill(0.0);
    let (weights, slopes) = (&mut weights[..visible], &mut slopes[..visible]);
    let sum = Lanes::splat(simd, sum);
    let mut total = Lanes::splat(simd, 0.0);
    let mut place = 0;
    while place < visible {
        let part = place..visible.min(place + lanes);
        let weight = exp(Lanes::load(simd, &weights[part.clone()]) - sum);
        let mut slope = Lanes::load(simd, &slopes[part.clone()]);
        if let Some(factors) = factors {
            slope = slope * Lanes::load(simd, &factors[part.clone()]);
            slope.store(&mut slopes[part.clone()]);
        }
        weight.store(&mut weights[part.clone()]);
        // Behind the end the slope is zero.
        total = weight.mul_add(slope, total);
        place = part.end;
    }
    let total = Lanes::splat(simd, total.sum());
    let mut place = 0;
    while place < visible {
        let part = place..visible.min(place + lanes);
        let weight = Lanes::load(simd, &weights[part.clone()]);
        let slope = Lanes::load(simd, &slopes[part.clone()]);
        (weight * (slope - total)).store(&mut slopes[part.clone()]);
        if let Some(factors) = factors {
            let factor = Lanes::load(simd, &factors[part.clone()]);
            (weight * factor).store(&mut weights[part.clone()]);
        }
        place = part.end;
    }
}
