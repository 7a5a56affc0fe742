//! The K formats: blocks of 256 numbers, with scales of their own for groups of 16 or 32.

use super::blocks::{half, nibbles};

/// `Q4_K`: two halves, 12 bytes of scales, 4 bits for each number.
pub(super) fn q4(block: &[u8; 144], out: &mut Vec<f32>) {
    for (pair, low) in block[16..].chunks_exact(32).enumerate() {
        for (group, numbers) in groups(low) {
            let (scale, minimum) = scale_and_minimum(block, 2 * pair + group);
            out.extend(numbers.map(|q| scale * f32::from(q) - minimum));
        }
    }
}

/// `Q5_K`: the same with a fifth bit for each number, in 32 bytes before the others; bit `g` of a
/// byte belongs to group `g`.
pub(super) fn q5(block: &[u8; 176], out: &mut Vec<f32>) {
    let high = &block[16..48];
    for (pair, low) in block[48..].chunks_exact(32).enumerate() {
        for (half_of_pair, numbers) in groups(low) {
            let group = 2 * pair + half_of_pair;
            let (scale, minimum) = scale_and_minimum(block, group);
            let numbers = numbers.zip(high).map(|(q, high)| q | ((high >> group) & 1) << 4);
            out.extend(numbers.map(|q| scale * f32::from(q) - minimum));
        }
    }
}

/// `Q6_K`: 128 bytes with the lower 4 bits of each number, 64 with the upper 2, 16 scales, a half.
pub(super) fn q6(block: &[u8; 210], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, rest) = rest.split_at(16);
    let d = half(rest, 0);
    for (part, (low, high)) in low.chunks_exact(64).zip(high.chunks_exact(32)).enumerate() {
        for (i, q) in nibbles(low).enumerate() {
            // 128 numbers in four groups of 32, which share the bytes of `high`.
            let (group, at) = (i / 32, i % 32);
            let q = q | ((high[at] >> (2 * group)) & 3) << 4;
            let scale = d * f32::from(scales[8 * part + i / 16] as i8);
            out.push(scale * (f32::from(q) - 32.0));
        }
    }
}

/// The two groups of 32 numbers that share 32 bytes.
fn groups(bytes: &[u8]) -> impl Iterator<Item = (usize, impl Iterator<Item = u8>)> {
    [0, 1].into_iter().map(move |group| (group, bytes.iter().map(move |b| (b >> (4 * group)) & 15)))
}

/// What the numbers of group `g` in 0..8 are multiplied with, and what is subtracted then: two
/// halves at the start of the block, times 6 bits each. In the 12 bytes after the halves, groups
/// 0..4 have theirs in the lower 6 bits of bytes `g` and `g + 4`; groups 4..8 have 4 bits in the
/// nibbles of byte `g + 4` and 2 bits at the top of bytes `g - 4` and `g`.
fn scale_and_minimum(block: &[u8], g: usize) -> (f32, f32) {
    let bytes = &block[4..16];
    let (scale, minimum) = if g < 4 {
        (bytes[g] & 63, bytes[g + 4] & 63)
    } else {
        let (low, scale, minimum) = (bytes[g + 4], bytes[g - 4], bytes[g]);
        ((low & 15) | (scale >> 6) << 4, (low >> 4) | (minimum >> 6) << 4)
    };
    (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(minimum))
}
