//! Packing in GGUF's `Q8_0`.

use burn::tensor::f16;

/// The blocks of numbers, 32 to each: the largest absolute value becomes 127.
pub(crate) fn pack(values: &[f32]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(values.len() / 32 * 34);
    for values in values.as_chunks::<32>().0 {
        let d = values.iter().fold(0.0_f32, |most, v| most.max(v.abs())) / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        blocks.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        blocks.extend(values.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    blocks
}
