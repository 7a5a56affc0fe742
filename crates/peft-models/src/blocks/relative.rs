//! Biases of attention by distance (T5, Raffel et al. 2020, arXiv 1910.10683, §2.1).

use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData};
use peft_kernels::Buckets;

use super::FrozenEmbedding;

/// A bias for each head and each bucket of distances. Small distances have buckets of their own,
/// larger ones share them the more the larger they are.
#[derive(Debug, Clone)]
pub struct RelativeBias {
    /// `[buckets, heads]`.
    pub table: FrozenEmbedding,
    /// From here on all distances share the last bucket.
    pub max_distance: usize,
    /// Whether later tokens have buckets too.
    pub both_directions: bool,
}

impl RelativeBias {
    /// `[rows, heads, queries, keys]` for the distances of keys from queries, row by row.
    pub(super) fn forward(
        &self,
        distances: &[i64],
        [rows, queries, keys]: [usize; 3],
    ) -> Tensor<4> {
        // Far fewer distances than pairs.
        let mut buckets: HashMap<i64, i64> = HashMap::new();
        let bucket =
            |distance: &i64| *buckets.entry(*distance).or_insert_with(|| self.bucket(*distance));
        let buckets: Vec<i64> = distances.iter().map(bucket).collect();
        let weight = self.values();
        let [_, heads] = weight.dims();
        let indices = TensorData::new(buckets, [rows * queries * keys]);
        let indices = Tensor::<1, Int>::from_data(indices, &weight.device());
        let bias = weight.select(0, indices).reshape([rows, queries * keys, heads]);
        bias.swap_dims(1, 2).reshape([rows, heads, queries, keys])
    }

    /// The table's.
    pub(super) fn values(&self) -> Tensor<2> {
        self.table.weight().dense()
    }

    /// The buckets of all distances of so many places of keys from so many of queries.
    pub(super) fn buckets(&self, [queries, keys]: [usize; 2]) -> Buckets {
        let (before, behind) = (queries as i64 - 1, keys as i64);
        let of_distances = (-before..behind).map(|distance| self.bucket(distance) as usize);
        Buckets { of_distances: of_distances.collect(), zero: queries.saturating_sub(1) }
    }

    /// The bucket of a key `distance` positions after the query.
    fn bucket(&self, distance: i64) -> i64 {
        let all = self.table.len() as i64;
        let (buckets, first) = match self.both_directions {
            true if distance > 0 => (all / 2, all / 2),
            true => (all / 2, 0),
            false => (all, 0),
        };
        let distance = if self.both_directions { distance.abs() } else { (-distance).max(0) };
        let exact = buckets / 2;
        if distance < exact {
            return first + distance;
        }
        // In f32 as the reference, so that a distance at a bound falls on the same side.
        let share = (distance as f32 / exact as f32).ln()
            / (self.max_distance as f64 / exact as f64).ln() as f32;
        let bucket = exact + (share * (buckets - exact) as f32) as i64;
        first + bucket.min(buckets - 1)
    }
}
