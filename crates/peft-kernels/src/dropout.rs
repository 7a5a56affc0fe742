//! Dropout from a counter: the same numbers are dropped on every device, and in the backward pass
//! they are drawn again instead of kept.

use burn::tensor::{Device, Tensor, TensorData};

use crate::simd::{self, random::Mask};

/// Sets each number to zero with probability `p`, and multiplies the others by `1 / (1 - p)`, as a
/// function of the number of a draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    p: f64,
    draw: u64,
}

impl Dropout {
    /// The draw with this number.
    ///
    /// # Panics
    /// If `p` is not below 1, or negative.
    pub fn new(p: f64, draw: u64) -> Self {
        assert!((0.0..1.0).contains(&p), "a probability of dropping below 1, not {p}");
        Self { p, draw }
    }

    pub(crate) fn mask(self) -> Mask {
        Mask::new(self.p, self.draw)
    }

    /// What the numbers of `[.., columns]` are multiplied by.
    pub fn factors<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let mut values = vec![0.0; shape.iter().product()];
        simd::run(Factors { mask: self.mask(), columns: shape[D - 1], values: &mut values });
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// `x` with some of its numbers dropped.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if crate::fused::is_fast(&x) {
            return crate::elementwise::dropped(self, x);
        }
        let factors = self.factors(x.dims(), &x.device().without_autodiff());
        let dtype = x.dtype();
        x * factors.cast(dtype)
    }
}

struct Factors<'a> {
    mask: Mask,
    columns: usize,
    values: &'a mut [f32],
}

impl pulp::WithSimd for Factors<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let rows = self.values.chunks_mut(self.columns.max(1));
        for (row, factors) in rows.enumerate() {
            self.mask.write(simd, row, factors);
        }
    }
}
