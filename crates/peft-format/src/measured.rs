//! What an adapter changed, as its numbers show.

use std::collections::BTreeSet;

use burn::tensor::linalg::{qr, svd};
use burn::tensor::{Tensor, TensorData};
use peft_core::{Base, BaseSite, SiteKind};
use serde::Serialize;

use crate::merge::{merged_tensors, tensors_under};
use crate::{Adapter, Result};

/// What a trained adapter changed in a model, found by comparing the merged model with the base:
/// [`Accounting`](crate::Accounting) says what it *can* change, this what it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredCounts {
    /// Values of the merged model that differ from the base's.
    pub changed: usize,
    /// Singular values of the changes of weight matrices that are above `tolerance` times the largest
    /// of their matrix, summed over matrices.
    pub rank: usize,
    /// Relative to the largest singular value of a change.
    pub tolerance: f64,
}

impl MeasuredCounts {
    /// The tolerance by default. Merging rounds each weight to f32, which is noise of about 1e-6 of
    /// the largest singular value of a usual change.
    pub const TOLERANCE: f64 = 1e-5;

    /// Compares `base` with what it is with `adapter` merged.
    ///
    /// # Errors
    /// If the method cannot be merged.
    pub fn new(adapter: &Adapter, base: &Base, tolerance: f64) -> Result<Self> {
        let merged = merged_tensors(adapter, base)?;
        let before = tensors_under(&(), base);
        let is_matrix = |kind| matches!(kind, SiteKind::Linear | SiteKind::Embedding);
        let matrices = base.iter().filter(|entry| is_matrix(entry.site.kind));
        let keys = |entry: &BaseSite| {
            entry.weight_key.clone().into_iter().chain([entry.site.key("weight")])
        };
        let matrices: BTreeSet<String> = matrices.flat_map(keys).collect();
        let (mut changed, mut rank) = (0, 0);
        for (key, after) in merged {
            let values = |data: TensorData| data.convert::<f32>().try_into_vec::<f32>();
            let shape = after.shape().to_vec();
            let after = values(after).expect("converted");
            // What the base does not have (a bias, an untied head) was zero, or the embedding's.
            let old = before.get(&key).cloned().map(|data| values(data).expect("converted"));
            let old = old.unwrap_or_else(|| vec![0.0; after.len()]);
            let change: Vec<f32> = after.iter().zip(&old).map(|(new, old)| new - old).collect();
            changed += change.iter().filter(|change| **change != 0.0).count();
            let is_weight = matrices.contains(&key);
            if let (&[rows, columns], true) = (&shape[..], is_weight) {
                rank += rank_of(&change, [rows, columns], tolerance);
            }
        }
        Ok(Self { changed, rank, tolerance })
    }
}

/// The number of singular values above `tolerance` times the largest.
fn rank_of(matrix: &[f32], [rows, columns]: [usize; 2], tolerance: f64) -> usize {
    // Rows and columns of zeros have no part in it.
    let is_set = |row: usize, column: usize| matrix[row * columns + column] != 0.0;
    let used_rows: Vec<usize> =
        (0..rows).filter(|row| (0..columns).any(|column| is_set(*row, column))).collect();
    let used_columns: Vec<usize> =
        (0..columns).filter(|column| (0..rows).any(|row| is_set(row, *column))).collect();
    let (rows, width) = (used_rows.len(), used_columns.len());
    if rows == 0 {
        return 0;
    }
    let kept = used_rows.iter().flat_map(|row| used_columns.iter().map(move |c| row * columns + c));
    let kept: Vec<f32> = kept.map(|i| matrix[i]).collect();
    let change = Tensor::<2>::from_data(TensorData::new(kept, [rows, width]), &Default::default());
    // Tall: its triangle has the same singular values.
    let tall = if rows < width { change.transpose() } else { change };
    let (_, triangle) = qr::<2>(tall, true);
    let (_, values, _) = svd::<2, 1>(triangle, 30);
    let values: Vec<f32> = values.into_data().try_into_vec().expect("floats");
    let largest = values.iter().copied().fold(0.0, f32::max);
    values.iter().filter(|value| f64::from(**value) > tolerance * f64::from(largest)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_that_of_what_is_not_zero() {
        // Two outer products in rows 1, 3, 4 and columns 0, 2, 3, 5 of a matrix of 6 x 7.
        let (u, v) =
            ([[1.0, -2.0, 0.5], [3.0, 1.0, 4.0]], [[1.0, 2.0, -1.0, 3.0], [0.5, -1.0, 2.0, 7.0]]);
        let mut matrix = vec![0.0f32; 6 * 7];
        for (i, row) in [1, 3, 4].into_iter().enumerate() {
            for (j, column) in [0, 2, 3, 5].into_iter().enumerate() {
                matrix[row * 7 + column] = u[0][i] * v[0][j] + 1e-3 * u[1][i] * v[1][j];
            }
        }
        assert_eq!(rank_of(&matrix, [6, 7], 1e-5), 2);
        assert_eq!(rank_of(&matrix, [6, 7], 0.1), 1);
        assert_eq!(rank_of(&[0.0; 42], [6, 7], 1e-5), 0);
    }
}
