//! Low-rank products of rows that have factors of their own.

#[cfg(feature = "flex")]
mod fast;

use std::ops::Range;

use burn::tensor::Tensor;

/// Rows one after another with the same factors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The rows.
    pub rows: Range<usize>,
    /// Which of the factors; `None` for none.
    pub factors: Option<usize>,
}

/// `y + (x A) B`, `[rows, d_out]`, where each segment of rows has factors of its own: `a` is
/// `[factors, d_in, r]`, `b` is `[factors, r, d_out]`. The segments are all rows, in their order.
///
/// `None` where this crate has no kernel for it: on other devices than the CPU, and in other types
/// than f32.
///
/// # Panics
/// If the segments are not the rows of `x` and `y`, or name factors that are not there.
pub fn segmented(
    y: &Tensor<2>,
    x: &Tensor<2>,
    [a, b]: [&Tensor<3>; 2],
    segments: &[Segment],
) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    if [y, x].into_iter().all(crate::fused::is_fast)
        && [a, b].into_iter().all(crate::fused::is_fast)
    {
        return Some(fast::segmented(y.clone(), x.clone(), a.clone(), b.clone(), segments));
    }
    let _ = (y, x, a, b, segments);
    None
}
