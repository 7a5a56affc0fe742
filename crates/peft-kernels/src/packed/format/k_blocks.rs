//! The K formats: blocks of 256 numbers, with scales of their own for groups of 16 or 32.

use super::{half, nibbles};

/// `Q4_K`: two halves, 12 bytes of scales, 4 bits for each number.
#[inline(always)]
pub(super) fn q4(block: &[u8; 144], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    let pairs = block[16..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
    for (pair, (bytes, out)) in pairs.enumerate() {
        let (low, high) = out.split_at_mut(32);
        for (half, out) in [low, high].into_iter().enumerate() {
            let (scale, minimum) = scales[2 * pair + half];
            for (v, byte) in out.iter_mut().zip(bytes) {
                *v = scale * f32::from((byte >> (4 * half)) & 15) - minimum;
            }
        }
    }
}

/// `Q5_K`: the same with a fifth bit for each number, in 32 bytes before the others; bit `g` of a
/// byte belongs to group `g`.
#[inline(always)]
pub(super) fn q5(block: &[u8; 176], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    let fifth = &block[16..48];
    let pairs = block[48..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
    for (pair, (bytes, out)) in pairs.enumerate() {
        let (low, high) = out.split_at_mut(32);
        for (half, out) in [low, high].into_iter().enumerate() {
            let group = 2 * pair + half;
            let (scale, minimum) = scales[group];
            for ((v, byte), fifth) in out.iter_mut().zip(bytes).zip(fifth) {
                let q = (byte >> (4 * half)) & 15 | ((fifth >> group) & 1) << 4;
                *v = scale * f32::from(q) - minimum;
            }
        }
    }
}

/// `Q6_K`: 128 bytes with the lower 4 bits of each number, 64 with the upper 2, 16 scales, a half.
#[inline(always)]
pub(super) fn q6(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, rest) = rest.split_at(16);
    let d = half(rest, 0);
    let parts = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0);
    for (part, ((low, high), out)) in parts.zip(out.as_chunks_mut::<128>().0).enumerate() {
        nibbles(low, out, f32::from);
        // 128 numbers in four groups of 32, which share the bytes of `high`.
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (i, (v, high)) in out.iter_mut().zip(high).enumerate() {
                let scale = d * f32::from(scales[8 * part + 2 * group + i / 16] as i8);
                let upper = ((high >> (2 * group)) & 3) << 4;
                *v = scale * (*v + f32::from(upper) - 32.0);
            }
        }
    }
}

/// What the numbers of each group of 32 are multiplied with, and what is subtracted then: two
/// halves at the start of the block, times 6 bits each. In the 12 bytes after the halves, groups
/// `g` in 0..4 have theirs in the lower 6 bits of bytes `g` and `g + 4`; groups 4..8 have 4 bits in
/// the nibbles of byte `g + 4` and 2 bits at the top of bytes `g - 4` and `g`.
#[inline(always)]
pub(super) fn scales_and_minima(block: &[u8]) -> [(f32, f32); 8] {
    let (d, e) = (half(block, 0), half(block, 2));
    let bytes = &block[4..16];
    std::array::from_fn(|g| {
        let (scale, minimum) = if g < 4 {
            (bytes[g] & 63, bytes[g + 4] & 63)
        } else {
            let (low, scale, minimum) = (bytes[g + 4], bytes[g - 4], bytes[g]);
            ((low & 15) | (scale >> 6) << 4, (low >> 4) | (minimum >> 6) << 4)
        };
        (d * f32::from(scale), e * f32::from(minimum))
    })
}
