//! Random checkpoints.

use burn::tensor::TensorData;
use peft_core::TensorMap;

use super::HIDDEN;
use crate::numbers::Normal;

/// A checkpoint as it is filled.
pub(super) struct Random {
    normal: Normal,
    tensors: TensorMap,
}

impl Random {
    /// The same numbers each time.
    pub(super) fn new() -> Self {
        Self { normal: Normal::new(7), tensors: TensorMap::new() }
    }

    pub(super) fn into_tensors(self) -> TensorMap {
        self.tensors
    }

    /// A table of so many entries.
    pub(super) fn table(&mut self, path: &str, shape: [usize; 2]) {
        self.put(&format!("{path}.weight"), &shape, 0.0, 1.0);
    }

    /// A weight `[d_out, d_in]` and a bias.
    pub(super) fn linear(&mut self, path: &str, [d_in, d_out]: [usize; 2]) {
        self.unbiased(path, [d_in, d_out]);
        self.put(&format!("{path}.bias"), &[d_out], 0.0, 0.3);
    }

    /// A weight `[d_out, d_in]`.
    pub(super) fn unbiased(&mut self, path: &str, shape: [usize; 2]) {
        self.small(path, shape, 1.0);
    }

    /// The same, times a factor.
    pub(super) fn small(&mut self, path: &str, [d_in, d_out]: [usize; 2], factor: f32) {
        let std = factor / (d_in as f32).sqrt();
        self.put(&format!("{path}.weight"), &[d_out, d_in], 0.0, std);
    }

    /// A weight `[d_in, d_out]` and a bias.
    pub(super) fn conv1d(&mut self, path: &str, [d_in, d_out]: [usize; 2]) {
        let std = 1.0 / (d_in as f32).sqrt();
        self.put(&format!("{path}.weight"), &[d_in, d_out], 0.0, std);
        self.put(&format!("{path}.bias"), &[d_out], 0.0, 0.3);
    }

    /// A gain and a bias.
    pub(super) fn norm(&mut self, path: &str) {
        self.rms_norm(path);
        self.put(&format!("{path}.bias"), &[HIDDEN], 0.0, 0.2);
    }

    /// A gain.
    pub(super) fn rms_norm(&mut self, path: &str) {
        self.put(&format!("{path}.weight"), &[HIDDEN], 1.0, 0.2);
    }

    fn put(&mut self, key: &str, shape: &[usize], mean: f32, std: f32) {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| mean + std * self.normal.next()).collect();
        self.tensors.insert(key.into(), TensorData::new(values, shape));
    }
}
