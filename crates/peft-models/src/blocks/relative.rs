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
    /// `[rows, heads, tokens, positions]`: the keys of a row are at positions 0, 1, .. behind as many
    /// as are `filled` up, its queries begin behind as many as `taken` says. Either may be of each
    /// row, or of all in one; without `filled`, none are.
    pub(super) fn forward(
        &self,
        taken: &[usize],
        filled: &[usize],
        [tokens, positions]: [usize; 2],
    ) -> Tensor<4> {
        let filled = if filled.is_empty() { &[0] } else { filled };
        let rows = taken.len().max(filled.len());
        let buckets = (0..rows).flat_map(|row| {
            // Where the first query is, among all keys.
            let first = (taken[row % taken.len()] + filled[row % filled.len()]) as i64;
            (0..tokens as i64).flat_map(move |token| {
                (0..positions as i64).map(move |key| self.bucket(key - (first + token)))
            })
        });
        let buckets: Vec<i64> = buckets.collect();
        let weight = self.table.weight().dense();
        let shape = [rows, tokens * positions];
        let indices =
            Tensor::<2, Int>::from_data(TensorData::new(buckets, shape), &weight.device());
        let heads = weight.dims()[1];
        let bias = embedding(weight, indices).swap_dims(1, 2);
        bias.reshape([rows, heads, tokens, positions])
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
