//! One query of each row over the keys that are kept, where they lie.

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::{Read, team};
use crate::attention::softmax;
use crate::fused::{Array, Operation, Saved, Shared, apply, filled, matrix, numbers, output};
use crate::simd::{Lanes, run};

/// Multiplications from which on all cores are worth it.
const SHARED: usize = 1 << 16;

pub(super) fn read(read: Read) -> Tensor<2> {
    let Read { query, key, value, bias, scale } = read;
    let inputs = [query.into_dispatch(), key.into_dispatch(), value.into_dispatch()];
    let bias = bias.map(Tensor::into_dispatch);
    apply(Reading { scale: scale as f32 }, inputs.into_iter().chain(bias))
}

/// The operation. Its inputs are queries, keys, values, and the bias if there is one.
#[derive(Debug)]
struct Reading {
    scale: f32,
}

impl Operation for Reading {
    fn names(&self) -> [&'static str; 2] {
        ["attention over a cache", "attention over a cache, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (query, [rows, width]) = matrix(&inputs[0]);
        let (key, value) = (States::new(&inputs[1]), States::new(&inputs[2]));
        let bias = inputs.get(3).map(States::new);
        let [_, shared_heads, keys, size] = key.shape;
        assert_eq!(value.shape, key.shape, "values like keys");
        assert_eq!(key.shape[0], rows, "keys of each row");
        let heads = width / size;
        assert!(heads * size == width && heads.is_multiple_of(shared_heads), "heads of queries");
        let together = heads / shared_heads;
        let query = numbers(&query);
        let all = |out: Shared| {
            let task = |number: usize| {
                let (row, head) = (number / shared_heads, number % shared_heads);
                let first = row * width + head * together * size;
                let range = first..first + together * size;
                run(Head {
                    query: &query[range.clone()],
                    key: &key,
                    value: &value,
                    bias: bias.as_ref(),
                    place: [row, head],
                    scale: self.scale,
                    // SAFETY: no other task has these heads of this row.
                    out: unsafe { out.part(range) },
                });
            };
            match rows * width * keys {
                small if small < SHARED => (0..rows * shared_heads).for_each(task),
                _ => team::share(rows * shared_heads, task),
            }
        };
        // SAFETY: the tasks are all heads of all rows.
        let values = unsafe { filled(rows * width, all) };
        (output(values, [rows, width]), Vec::new())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, _saved: &Saved, _gradient: Array, _wanted: &[bool]) -> Vec<Option<Array>> {
        unreachable!("only for tensors that are not on a tape")
    }
}

/// Numbers at `[row, head, place, channel]`, those of a place side by side.
struct States {
    array: Array,
    shape: [usize; 4],
    strides: [usize; 3],
    start: usize,
}

impl States {
    fn new(array: &Array) -> Self {
        let of = |array: &Array| {
            let layout = array.layout();
            let strides = layout.strides();
            let is_positive = strides.iter().all(|stride| *stride >= 0);
            let shape: [usize; 4] = std::array::from_fn(|axis| layout.shape()[axis]);
            (is_positive && (strides[3] == 1 || shape[3] == 1)).then(|| Self {
                array: array.clone(),
                shape,
                strides: std::array::from_fn(|axis| strides[axis] as usize),
                start: layout.start_offset(),
            })
        };
        of(array).or_else(|| of(&array.to_contiguous())).expect("a contiguous array is one")
    }

    /// The numbers at a place.
    #[inline(always)]
    fn at(&self, [row, head, place]: [usize; 3]) -> &[f32] {
        let [of_row, of_head, of_place] = self.strides;
        let from = self.start + row * of_row + head * of_head + place * of_place;
        &self.array.storage::<f32>()[from..from + self.shape[3]]
    }

    /// The same, of an array that may have one row or head for all.
    fn of_all(&self, [row, head, place]: [usize; 3]) -> &[f32] {
        self.at([row.min(self.shape[0] - 1), head.min(self.shape[1] - 1), place])
    }
}

/// The queries of a row that share a head of keys.
struct Head<'a> {
    query: &'a [f32],
    key: &'a States,
    value: &'a States,
    bias: Option<&'a States>,
    /// The row, and the head of keys.
    place: [usize; 2],
    scale: f32,
    out: &'a mut [f32],
}

impl WithSimd for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, key, value, bias, place: [row, head], scale, out } = self;
        let [_, _, keys, size] = key.shape;
        let together = query.len() / size;
        let query: Vec<f32> = query.iter().map(|number| number * scale).collect();
        let mut weights = vec![0.0_f32; together * keys];
        for place in 0..keys {
            let key = key.at([row, head, place]);
            for number in 0..together {
                let query = &query[number * size..(number + 1) * size];
                weights[number * keys + place] = dot(simd, query, key);
            }
        }
        for number in 0..together {
            let weights = &mut weights[number * keys..(number + 1) * keys];
            if let Some(bias) = bias {
                let bias = bias.of_all([row, head * together + number, 0]);
                for (weight, bias) in weights.iter_mut().zip(bias) {
                    *weight += bias;
                }
            }
            softmax(simd, weights, keys);
        }
        // The queries of a group read each value once.
        const GROUP: usize = 4;
        for first in (0..together).step_by(GROUP) {
            let count = GROUP.min(together - first);
            let mut channel = 0;
            while channel < size {
                let end = size.min(channel + S::F32_LANES);
                let mut sums = [Lanes::splat(simd, 0.0); GROUP];
                for place in 0..keys {
                    let value = Lanes::load(simd, &value.at([row, head, place])[channel..end]);
                    for number in 0..GROUP {
                        // Beyond the last query, the last one again, of which nothing is kept.
                        let weight = weights[(first + number.min(count - 1)) * keys + place];
                        sums[number] = value.mul_add(value.all(weight), sums[number]);
                    }
                }
                for (number, sum) in sums.into_iter().enumerate().take(count) {
                    let at = (first + number) * size;
                    sum.store(&mut out[at + channel..at + end]);
                }
                channel = end;
            }
        }
    }
}

/// `Σ a b`.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = Lanes::splat(simd, 0.0);
    let mut place = 0;
    while place < a.len() {
        let end = a.len().min(place + S::F32_LANES);
        sum = Lanes::load(simd, &a[place..end]).mul_add(Lanes::load(simd, &b[place..end]), sum);
        place = end;
    }
    sum.sum()
}
