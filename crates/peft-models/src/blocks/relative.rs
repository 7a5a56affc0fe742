//! Biases of attention by distance (T5, Raffel et al. 2020, arXiv 1910.10683, §2.1).

use burn::tensor::{Int, Tensor, TensorData, module::embedding};

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
    /// `[rows, heads, tokens, positions]`: keys are at positions 0, 1, ..; the queries of a row
    /// begin behind as many as `taken` says.
    pub(super) fn forward(&self, taken: &[usize], tokens: usize, positions: usize) -> Tensor<4> {
        let buckets = taken.iter().flat_map(|taken| {
            (0..tokens).flat_map(move |token| {
                (0..positions).map(move |key| self.bucket(key as i64 - (taken + token) as i64))
            })
        });
        let buckets: Vec<i64> = buckets.collect();
        let weight = self.table.weight().dense();
        let shape = [taken.len(), tokens * positions];
        let indices =
            Tensor::<2, Int>::from_data(TensorData::new(buckets, shape), &weight.device());
        let heads = weight.dims()[1];
        let bias = embedding(weight, indices).swap_dims(1, 2);
        bias.reshape([taken.len(), heads, tokens, positions])
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
