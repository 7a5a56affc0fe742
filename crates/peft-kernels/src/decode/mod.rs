//! What generation computes for one token of each text: little work at a time, in many operations.

#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
pub(crate) mod team;

use burn::tensor::{Tensor, activation::softmax};

/// What one query of each row reads from keys and values that are kept.
#[derive(Debug, Clone)]
pub struct Read {
    /// `[rows, heads · d_head]`.
    pub query: Tensor<2>,
    /// `[rows, key heads, keys, d_head]`; as many heads of queries share each as stand one after
    /// another.
    pub key: Tensor<4>,
    /// The same of values.
    pub value: Tensor<4>,
    /// What is added to scores, `[rows or 1, heads or 1, 1, keys]`.
    pub bias: Option<Tensor<4>>,
    /// The factor on scores.
    pub scale: f64,
}

impl Read {
    /// `softmax(s Q Kᵀ + bias) V`, `[rows, heads · d_head]`.
    pub fn forward(self) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if self.is_fast() {
            return attention::read(self);
        }
        self.by_burn()
    }

    /// Whether all is f32 on the CPU, and nothing on a tape.
    #[cfg(feature = "flex")]
    fn is_fast(&self) -> bool {
        let Self { query, key, value, bias, .. } = self;
        is_untracked(query) && [key, value].into_iter().chain(bias).all(is_untracked)
    }

    /// By Burn's operations.
    fn by_burn(self) -> Tensor<2> {
        let Self { query, key, value, bias, scale } = self;
        let ([rows, width], [_, shared_heads, keys, size]) = (query.dims(), key.dims());
        let heads = width / size;
        let query = (query * scale).reshape([rows, shared_heads, heads / shared_heads, size]);
        let scores = query.matmul(key.swap_dims(2, 3)).reshape([rows, heads, 1, keys]);
        let scores = match bias {
            Some(bias) => scores + bias,
            None => scores,
        };
        let weights = softmax(scores, 3).reshape([rows, shared_heads, heads / shared_heads, keys]);
        weights.matmul(value).reshape([rows, width])
    }
}

/// Whether a tensor is f32 on the CPU, and not on a tape.
#[cfg(feature = "flex")]
pub(crate) fn is_untracked<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::fused::is_fast(tensor) && !tensor.device().is_autodiff()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    /// Numbers that do not repeat soon, some of them large.
    fn tensor<const D: usize>(shape: [usize; D], seed: u32, size: f32) -> Tensor<D> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn what_is_read_is_what_burns_operations_read() {
        // Shared heads; widths that are no whole registers; more heads than are read at a time;
        // enough work for all cores; keys with room behind them, heads apart or side by side.
        for [rows, heads, shared, keys, size] in
            [[1, 9, 3, 37, 64], [3, 4, 4, 1, 5], [2, 12, 1, 129, 24], [8, 9, 3, 200, 64]]
        {
            let room = keys + 7;
            let wide = tensor([rows, room, shared, size], 2, 3.0).swap_dims(1, 2);
            let biases = [
                None,
                Some(tensor([1, 1, 1, keys], 4, 2.0)),
                Some(tensor([rows, heads, 1, keys], 5, 5.0)),
                Some(tensor([rows, 1, 1, keys], 6, 1.0).lower_equal_elem(0.0).float() * -1e9),
            ];
            for bias in biases {
                let read = Read {
                    query: tensor([rows, heads * size], 1, 2.0),
                    key: wide.clone().narrow(2, 0, keys),
                    value: tensor([rows, shared, room, size], 3, 4.0).narrow(2, 0, keys),
                    bias,
                    scale: 0.3,
                };
                assert!(read.is_fast());
                let (found, expected) = (read.clone().forward(), read.by_burn());
                let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-5);
                found.into_data().assert_approx_eq(&expected.into_data(), tolerance);
            }
        }
    }
}
