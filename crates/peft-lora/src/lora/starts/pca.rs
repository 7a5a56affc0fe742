//! Principal components of data that come in batches (Ross et al. 2008).

use burn::tensor::{Tensor, TensorData};

use super::super::decompose::Decomposed;

/// Principal components of all rows seen so far.
#[derive(Debug)]
pub(super) struct Pca {
    count: usize,
    seen: f64,
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// `[count, d]`, and a value for each; none before the first batch.
    found: Option<(Tensor<2>, Vec<f32>)>,
}

impl Pca {
    /// So many components.
    pub(super) fn new(count: usize) -> Self {
        Self { count, seen: 0.0, mean: Vec::new(), variance: Vec::new(), found: None }
    }

    /// The components so far, `[count, d]`, of length 1, the largest entry of each positive.
    pub(super) fn components(&self) -> Option<&Tensor<2>> {
        self.found.as_ref().map(|(components, _)| components)
    }

    /// The singular values of all that was seen.
    pub(super) fn singular_values(&self) -> &[f32] {
        self.found.as_ref().map_or(&[], |(_, values)| values)
    }

    /// The share of the variance that each component explains.
    pub(super) fn explained(&self) -> Vec<f64> {
        let total: f64 = self.variance.iter().map(|variance| variance * self.seen).sum();
        self.singular_values().iter().map(|value| f64::from(*value).powi(2) / total).collect()
    }

    /// Sees more rows, `[n, d]`: at least as many as components; fewer are passed over.
    pub(super) fn see(&mut self, rows: Tensor<2>) {
        let [n, d] = rows.dims();
        if n < self.count {
            return;
        }
        let device = rows.device();
        let mut values: Vec<f32> =
            rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        let batch = Batch::of(&values, d);
        let total = self.seen + n as f64;
        let old_mean = std::mem::replace(&mut self.mean, vec![0.0; d]);
        let old_variance = std::mem::replace(&mut self.variance, vec![0.0; d]);
        for column in 0..d {
            let [old_sum, old_squares] = match self.seen > 0.0 {
                true => [old_mean[column] * self.seen, old_variance[column] * self.seen],
                false => [0.0; 2],
            };
            self.mean[column] = (old_sum + batch.sums[column]) / total;
            let between = match self.seen > 0.0 {
                true => {
                    let ratio = self.seen / n as f64;
                    ratio / total * (old_sum / ratio - batch.sums[column]).powi(2)
                }
                false => 0.0,
            };
            self.variance[column] = (old_squares + batch.squares[column] + between) / total;
        }
        for row in values.chunks_mut(d) {
            row.iter_mut().zip(&batch.sums).for_each(|(value, sum)| {
                *value = (f64::from(*value) - sum / n as f64) as f32;
            });
        }
        let mut stacked = vec![Tensor::<2>::from_data(TensorData::new(values, [n, d]), &device)];
        if let Some((components, singular)) = self.found.take() {
            let singular = Tensor::<1>::from_data(&singular[..], &device);
            stacked.insert(0, components * singular.unsqueeze_dim(1));
            let factor = (self.seen / total * n as f64).sqrt();
            let correction = old_mean.iter().zip(&batch.sums);
            let correction = correction.map(|(old, sum)| (factor * (old - sum / n as f64)) as f32);
            let correction = TensorData::new(correction.collect::<Vec<f32>>(), [1, d]);
            stacked.push(Tensor::from_data(correction, &device));
        }
        let Decomposed { s, vt, .. } = Decomposed::of(Tensor::cat(stacked, 0));
        let singular = s.narrow(0, 0, self.count).into_data();
        let singular = singular.convert::<f32>().try_into_vec().expect("converted to f32");
        self.found = Some((turned(vt.narrow(0, 0, self.count)), singular));
        self.seen = total;
    }
}

/// Sums of the columns of a batch, and of their squared distances from the mean.
struct Batch {
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Batch {
    fn of(values: &[f32], d: usize) -> Self {
        let mut sums = vec![0.0; d];
        for row in values.chunks(d) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let n = (values.len() / d) as f64;
        let mut squares = vec![0.0; d];
        for row in values.chunks(d) {
            for (column, value) in row.iter().enumerate() {
                squares[column] += (f64::from(*value) - sums[column] / n).powi(2);
            }
        }
        Self { sums, squares }
    }
}

/// Rows with their largest entry positive.
fn turned(components: Tensor<2>) -> Tensor<2> {
    let ([rows, d], device) = (components.dims(), components.device());
    let mut values: Vec<f32> =
        components.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    for row in values.chunks_mut(d) {
        let mut largest = 0.0f32;
        for value in row.iter() {
            if value.abs() > largest.abs() {
                largest = *value;
            }
        }
        if largest < 0.0 {
            row.iter_mut().for_each(|value| *value = -*value);
        }
    }
    Tensor::from_data(TensorData::new(values, [rows, d]), &device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// Batches give the components of all rows together, as long as none of their directions is cut.
    #[test]
    fn batches_are_as_good_as_all_rows_at_once() {
        let device = Device::default();
        let all = Tensor::<2>::random([23, 5], Distribution::Normal(1.5, 2.0), &device);
        let scale = Tensor::<1>::from_data([5.0, 3.0, 2.0, 1.0, 0.5], &device);
        let all = all * scale.unsqueeze_dim(0);
        let mut pca = Pca::new(5);
        for (first, rows) in [(0, 9), (9, 6), (15, 8)] {
            pca.see(all.clone().narrow(0, first, rows));
        }
        let centred = all.clone() - all.mean_dim(0);
        let whole = Decomposed::of(centred);
        let expected = whole.s.into_data().try_into_vec::<f32>().expect("floats");
        for (found, expected) in pca.singular_values().iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-3 * expected, "{found} and {expected}");
        }
        let products = pca.components().expect("found").clone().matmul(whole.vt.transpose());
        let apart = products.abs() - Tensor::eye(5, &device);
        assert!(apart.abs().max().into_scalar::<f32>() < 1e-3);
        let sum: f64 = pca.explained().iter().sum();
        assert!((sum - 1.0).abs() < 1e-4, "all directions explain all: {sum}");
    }

    #[test]
    fn a_batch_with_too_few_rows_is_passed_over() {
        let mut pca = Pca::new(3);
        pca.see(Tensor::ones([2, 4], &Device::default()));
        assert!(pca.components().is_none());
    }
}
