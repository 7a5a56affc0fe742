//! 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314): 16 quantiles of a normal
//! distribution, times the largest absolute value of each block of 64.

/// The quantiles of the paper's appendix E.
pub(super) const QUANTILES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// An f32, then the indices of two numbers in each byte, that of the first in the upper half.
#[inline(always)]
pub(super) fn unpack(block: &[u8; 36], out: &mut [f32; 64]) {
    let absmax = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&block[4..]) {
        *pair = PAIRS[usize::from(*byte)];
    }
    for v in out {
        *v *= absmax;
    }
}

/// What each byte stands for: one look-up for two numbers.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [QUANTILES[byte >> 4], QUANTILES[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The blocks of numbers, 64 to each: the index of the nearest quantile, of two equally near ones
/// the lower.
pub(crate) fn pack(values: &[f32]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(values.len() / 64 * 36);
    for values in values.as_chunks::<64>().0 {
        let absmax = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let inverse = if absmax > 0.0 { 1.0 / absmax } else { 0.0 };
        blocks.extend_from_slice(&absmax.to_le_bytes());
        let pairs = values.as_chunks::<2>().0.iter();
        blocks.extend(pairs.map(|[a, b]| nearest(a * inverse) << 4 | nearest(b * inverse)));
    }
    blocks
}

fn nearest(value: f32) -> u8 {
    BOUNDS.partition_point(|bound| value > *bound) as u8
}

/// Half way between two quantiles.
const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = (QUANTILES[i] + QUANTILES[i + 1]) / 2.0;
        i += 1;
    }
    bounds
};
