//! Index tensors between `[tokens, d]` and `[rows, longest, d]`.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Index tensors between `[tokens, d]` and `[rows, longest, d]`.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// `[rows * longest]`, the token at each place of the batch; a row's first behind its end.
    pub(super) apart: Tensor<1, Int>,
    /// `[tokens]`, the place of each token in the batch.
    pub(super) together: Tensor<1, Int>,
}

impl Index {
    /// For rows with these starts, the number of tokens behind them.
    pub(super) fn new(starts: &[usize], longest: usize, device: &Device) -> Self {
        let bounds = || starts.windows(2).map(|pair| (pair[0], pair[1]));
        let apart = bounds().flat_map(|(from, to)| {
            // Behind the end lies something that is masked; a token of the row itself is finite.
            (from..from + longest).map(move |place| if place < to { place } else { from })
        });
        let together = bounds().enumerate().flat_map(|(row, (from, to))| {
            let first = row * longest;
            first..first + (to - from)
        });
        Self { apart: ints(apart, device), together: ints(together, device) }
    }
}

/// `[n]`.
pub(crate) fn ints(values: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.into_iter().map(|value| value as i64).collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}
