//! The gradients: weights are computed again from the logarithms of their sums.

use burn::backend::TensorMetadata;
use pulp::{Simd, WithSimd};

use super::forward::{Attention, QUERIES, States, add, scores, seen};
use super::{AttentionRow, AttentionSpec};
use crate::fused::{Array, Saved, Shared, numbers};
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
    let states = States::new(&arrays, attention);
    let shapes: Vec<_> = arrays.iter().map(TensorMetadata::shape).collect();
    let AttentionSpec { rows, heads, .. } = &attention.spec;
    let (extra, bias) = (attention.has_extra.then_some([3, 4]), attention.bias_input());
    let is_wanted = |number: Option<usize>| number.is_some_and(|number| wanted[number]);
    let extra_wanted = |which: usize| is_wanted(extra.map(|extra| extra[which]));
    let asked = Asked {
        query: wanted[0],
        key: wanted[1] || extra_wanted(0),
        value: wanted[2] || extra_wanted(1),
        bias: is_wanted(bias),
    };
    // Zeros, for keys that no row has, such as padding, and places in front that a row does not use.
    let room = |is_asked: bool, number: Option<usize>| {
        let shape = number.filter(|_| is_asked).map(|number| shapes[number].num_elements());
        vec![0.0; shape.unwrap_or(0)]
    };
    let mut found = [
        room(asked.query, Some(0)),
        room(asked.key, Some(1)),
        room(asked.value, Some(2)),
        room(asked.key, extra.map(|extra| extra[0])),
        room(asked.value, extra.map(|extra| extra[1])),
    ];
    let buckets = bias.map_or(0, |bias| shapes[bias][0]);
    // Each row and head has its own sums.
    let mut of_bias = vec![0.0; if asked.bias { rows.len() * heads * buckets } else { 0 }];
    let out = found.each_mut().map(|values| Shared::of(values));
    let shared = Shared::of(&mut of_bias);
    attention.each_head(|row, number, head| {
        let (gradient, sums, of_bias) = (numbers(&gradient), numbers(&sums), (shared, buckets));
        let place = Place { row, number, head };
        run(Backward { attention, states, gradient, sums, place, asked, out, of_bias });
    });
    let [query, key, value, extra_key, extra_value] = found;
    let mut gradients = vec![query, key, value];
    if extra.is_some() {
        gradients.extend([extra_key, extra_value]);
    }
    if bias.is_some() {
        gradients.push(summed_by_bucket(&of_bias, *heads, buckets));
    }
    let gradients = gradients.into_iter().zip(shapes).zip(wanted);
    gradients
        .map(|((values, shape), wanted)| {
            wanted.then(|| Array::from_data(TensorData::new(values, shape)))
        })
        .collect()
}

/// Sums of each row, `[rows, heads, buckets]`, as those of all, `[buckets, heads]`.
fn summed_by_bucket(of_rows: &[f32], heads: usize, buckets: usize) -> Vec<f32> {
    let mut sums = vec![0.0; heads * buckets];
    for of_row in of_rows.chunks((heads * buckets).max(1)) {
        for (place, value) in of_row.iter().enumerate() {
            sums[place % buckets * heads + place / buckets] += value;
        }
    }
    sums
}

/// The gradients that are wanted; of keys and values, with those in front.
#[derive(Clone, Copy)]
struct Asked {
    query: bool,
    key: bool,
    value: bool,
    bias: bool,
}

/// A row, its number, and a head of keys.
#[derive(Clone, Copy)]
struct Place {
    row: AttentionRow,
    number: usize,
    head: usize,
}

struct Backward<'a> {
    attention: &'a Attention,
    states: States<'a>,
    gradient: &'a [f32],
    sums: &'a [f32],
    place: Place,
    asked: Asked,
    /// Of queries, keys, values, keys in front and values in front.
    out: [Shared; 5],
    /// Of biases, by row and head, of so many buckets.
    of_bias: (Shared, usize),
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { attention, states, gradient, sums, place, asked, out, of_bias } = self;
        let Place { row, number, head: kept } = place;
        let AttentionSpec { heads, key_value_heads, size, scale, .. } = attention.spec;
        let (keys, width) = (row.extra + row.keys, heads * size);
        let scale = scale as f32;
        let [key, value] = attention.gathered(states, (row, number, kept));
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
        for head in kept * shared..(kept + 1) * shared {
            let mut first = 0;
            let biases = attention.biases(states, head);
            let mut of_distances = vec![0.0; if asked.bias { biases.len() } else { 0 }];
            while first < row.queries {
                let count = QUERIES.min(row.queries - first);
                let from = (row.query + first) * width + head * size;
                let most = seen(row, first + count - 1);
                let shape = [count, keys, most];
                scores(simd, &states.query[from..], width, &across, shape, &mut weights);
                scores(simd, &gradient[from..], width, &value_across, shape, &mut slopes);
                for place in 0..count {
                    let number = (row.query + first + place) * heads + head;
                    let visible = seen(row, first + place);
                    let line = place * keys..place * keys + most;
                    let (weights, slopes) = (&mut weights[line.clone()], &mut slopes[line]);
                    if let Some(mask) = mask {
                        mask.write(simd, number, &mut factors[..most]);
                    }
                    let factors = mask.is_some().then_some(&factors[..most]);
                    let distances = (!biases.is_empty()).then(|| {
                        let from = attention.first_distance(row, first + place);
                        from..from + visible
                    });
                    if let Some(distances) = &distances {
                        add(simd, &mut weights[..visible], &biases[distances.clone()]);
                    }
                    of_softmax(simd, weights, slopes, factors, visible, sums[number]);
                    if let Some(distances) = distances.filter(|_| asked.bias) {
                        add(simd, &mut of_distances[distances], &slopes[..visible]);
                    }
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
                if asked.key {
                    transposed_sum(simd, &slopes, &queries, shape, &mut of_keys);
                }
                if asked.value {
                    transposed_sum(simd, &weights, &above, shape, &mut of_values);
                }
                first += count;
                if !asked.query {
                    continue;
                }
                let term =
                    Term { left: &slopes, row: keys, column: 1, panels: &along, depth: most };
                let products = Products { terms: &[term], start: Start::Zero };
                // SAFETY: the columns of this head of these queries are this task's.
                unsafe {
                    let out = out[0].pointer(from..from + (count - 1) * width + size);
                    products.run(simd, count, 0..along.count(), out, width);
                }
            }
            if let (true, Some(buckets)) = (asked.bias, &attention.spec.buckets) {
                let (sums, count) = of_bias;
                let from = (number * heads + head) * count;
                // SAFETY: the sums of this row and head are this task's.
                let sums = unsafe { sums.part(from..from + count) };
                for (bucket, value) in buckets.of_distances.iter().zip(of_distances) {
                    sums[*bucket] += value;
                }
            }
        }
        of_keys.iter_mut().for_each(|value| *value *= scale);
        let back = |values: &[f32], extra: Shared, text: Shared| {
            let (front, own) = values.split_at(row.extra * size);
            if !front.is_empty() {
                let end = (number * key_value_heads + kept + 1) * states.room * size;
                // SAFETY: this row's places in front are this task's.
                unsafe { extra.part(end - front.len()..end).copy_from_slice(front) };
            }
            for (key, values) in own.chunks(size).enumerate() {
                let from = ((row.key + key) * key_value_heads + kept) * size;
                // SAFETY: the keys of this row and head are this task's.
                unsafe { text.part(from..from + size).copy_from_slice(values) };
            }
        };
        if asked.key {
            back(&of_keys, out[3], out[1]);
        }
        if asked.value {
            back(&of_values, out[4], out[2]);
        }
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
