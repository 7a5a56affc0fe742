//! Numbers: random ones, distances, and the rank of a matrix.

use burn::tensor::{Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How far two numbers may lie apart, relative to `1 + |expected|`: `on_cpu` on the CPU, and at
/// least 1e-3 on devices whose products round differently.
pub(crate) fn tolerance(on_cpu: f32) -> f32 {
    match std::env::var("BURN_DEVICE").as_deref() {
        Ok("flex" | "ndarray") | Err(_) => on_cpu,
        Ok(_) => on_cpu.max(1e-3),
    }
}

/// The values of a tensor, row by row.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    numbers(&tensor.into_data())
}

/// The values of a tensor's data as `f32`.
pub(crate) fn numbers(data: &TensorData) -> Vec<f32> {
    data.clone().convert::<f32>().try_into_vec().expect("it was converted")
}

/// The bits of numbers, where nothing may differ.
pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// The largest `|found - expected| / (1 + |expected|)`; infinite where a value is not finite.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "another number of values");
    found.iter().zip(expected).fold(0.0, |far, (found, expected)| {
        let distance = (found - expected).abs() / (1.0 + expected.abs());
        if distance.is_finite() { far.max(distance) } else { f32::INFINITY }
    })
}

/// Asserts that two lists of numbers are as close as [`tolerance`] says.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], on_cpu: f32) {
    let (distance, tolerance) = (distance(found, expected), tolerance(on_cpu));
    assert!(distance <= tolerance, "{what}: {distance:e} apart, at most {tolerance:e} is right");
}

/// Asserts that two lists of numbers are the same, bit for bit.
#[track_caller]
pub(crate) fn assert_same(what: &str, found: &[f32], expected: &[f32]) {
    let distance = distance(found, expected);
    assert!(bits(found) == bits(expected), "{what}: {distance:e} apart, and must be the same bits");
}

/// The rank of a matrix given row by row: Gaussian elimination with full pivoting, in which a
/// pivot below 1e-4 of the first is rounding.
pub(crate) fn rank(mut matrix: Vec<f64>, rows: usize, columns: usize) -> usize {
    let mut first = 0.0;
    for step in 0..rows.min(columns) {
        let rest = (step..rows).flat_map(|i| (step..columns).map(move |j| (i, j)));
        let magnitude = |&(i, j): &(usize, usize)| matrix[i * columns + j].abs();
        let Some((row, column)) = rest.max_by(|a, b| magnitude(a).total_cmp(&magnitude(b))) else {
            return step;
        };
        let pivot = matrix[row * columns + column];
        if step == 0 {
            first = pivot.abs();
        }
        if pivot.abs() <= 1e-4 * first {
            return step;
        }
        for j in 0..columns {
            matrix.swap(step * columns + j, row * columns + j);
        }
        for i in 0..rows {
            matrix.swap(i * columns + step, i * columns + column);
        }
        for i in step + 1..rows {
            let factor = matrix[i * columns + step] / pivot;
            for j in step..columns {
                matrix[i * columns + j] -= factor * matrix[step * columns + j];
            }
        }
    }
    rows.min(columns)
}

/// Numbers from `N(0, 1)`, the same for the same seed on every device.
#[derive(Debug)]
pub(crate) struct Normal(StdRng);

impl Normal {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// The next one, by Box and Muller.
    pub(crate) fn next(&mut self) -> f32 {
        let (u, v): (f64, f64) = (1.0 - self.0.random::<f64>(), self.0.random());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// `count` of them.
    pub(crate) fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_of_products() {
        for (rows, columns, inner) in [(5, 9, 1), (9, 5, 3), (24, 40, 24), (7, 7, 6)] {
            let mut normal = Normal::new(3);
            let (a, b) = (normal.take(rows * inner), normal.take(inner * columns));
            let product = |i: usize, j: usize| -> f64 {
                (0..inner).map(|k| f64::from(a[i * inner + k] * b[k * columns + j])).sum()
            };
            let matrix = (0..rows)
                .flat_map(|i| (0..columns).map(move |j| (i, j)))
                .map(|(i, j)| product(i, j));
            assert_eq!(rank(matrix.collect(), rows, columns), inner);
        }
        assert_eq!(rank(vec![0.0; 12], 3, 4), 0);
    }

    #[test]
    fn not_a_number_is_far_away() {
        assert_eq!(distance(&[1.0, f32::NAN], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(distance(&[3.5], &[4.0]), 0.1);
    }
}
