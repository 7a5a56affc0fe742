//! The softmax of a query's scores.

use pulp::Simd;

use crate::simd::{Lanes, exp};

/// Scores as weights, those behind the first `visible` zeros; the logarithm of the sum.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(simd: S, weights: &mut [f32], visible: usize) -> f32 {
    let lanes = S::F32_LANES;
    let (seen, hidden) = weights.split_at_mut(visible);
    hidden.fill(0.0);
    let (whole, rest) = seen.split_at(visible - visible % lanes);
    let mut most = Lanes::splat(simd, f32::NEG_INFINITY);
    for part in whole.chunks(lanes) {
        most = Lanes::load(simd, part).max(most);
    }
    let most = rest.iter().copied().fold(most.largest(), f32::max);
    let shift = Lanes::splat(simd, most);
    let mut sum = Lanes::splat(simd, 0.0);
    let end = whole.len();
    for part in seen[..end].chunks_mut(lanes) {
        let weight = exp(Lanes::load(simd, part) - shift);
        sum = sum + weight;
        weight.store(part);
    }
    let mut sum = sum.sum();
    if end < seen.len() {
        let part = &mut seen[end..];
        exp(Lanes::load(simd, part) - shift).store(part);
        sum += part.iter().sum::<f32>();
    }
    let share = Lanes::splat(simd, 1.0 / sum);
    for part in seen.chunks_mut(lanes) {
        (Lanes::load(simd, part) * share).store(part);
    }
    most + sum.ln()
}
