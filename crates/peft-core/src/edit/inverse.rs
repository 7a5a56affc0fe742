//! The inverses of small matrices.

use burn::tensor::{Tensor, TensorData};

/// The inverse of each matrix of `[count, size, size]`; `None` where one has none. On the host, in
/// `f64`: it is for taking a change out of a weight, which is done once.
pub(super) fn inverse(matrices: Tensor<3>) -> Option<Tensor<3>> {
    let (dims, device) = (matrices.dims(), matrices.device().without_autodiff());
    let size = dims[1];
    let values = matrices.into_data().convert::<f64>().try_into_vec::<f64>().ok()?;
    let mut inverses = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((size * size).max(1)) {
        inverses.extend(inverse_of(matrix, size)?.into_iter().map(|value| value as f32));
    }
    Some(Tensor::from_data(TensorData::new(inverses, dims), &device))
}

/// Gauss–Jordan with the largest pivot of each column.
fn inverse_of(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    // Each row with its row of the identity beside it.
    let mut rows: Vec<Vec<f64>> = matrix
        .chunks_exact(size)
        .enumerate()
        .map(|(number, row)| {
            let identity = (0..size).map(|column| f64::from(u8::from(column == number)));
            row.iter().copied().chain(identity).collect()
        })
        .collect();
    for column in 0..size {
        let largest =
            |a: &usize, b: &usize| rows[*a][column].abs().total_cmp(&rows[*b][column].abs());
        let pivot = (column..size).max_by(largest)?;
        rows.swap(column, pivot);
        let divisor = rows[column][column];
        if !divisor.is_normal() {
            return None;
        }
        rows[column].iter_mut().for_each(|value| *value /= divisor);
        let pivot = rows[column].clone();
        for (number, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if number != column && factor != 0.0 {
                row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    Some(rows.into_iter().flat_map(|row| row.into_iter().skip(size)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_and_its_inverse_are_the_identity() {
        // The first pivot is zero.
        let matrix = [0.0, 2.0, 1.0, 1.0, 0.5, -1.0, 3.0, 0.25, 2.0];
        let inverse = inverse_of(&matrix, 3).expect("there is one");
        for row in 0..3 {
            for column in 0..3 {
                let found: f64 =
                    (0..3).map(|k| matrix[3 * row + k] * inverse[3 * k + column]).sum();
                let expected = f64::from(u8::from(row == column));
                assert!((found - expected).abs() < 1e-12, "{found} at {row}, {column}");
            }
        }
        assert_eq!(inverse_of(&[1.0, 2.0, 2.0, 4.0], 2), None);
    }
}
