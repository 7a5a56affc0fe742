//! 4-bit NormalFloat is what bitsandbytes makes of the same numbers.

use std::path::Path;

use peft_format::read_safetensors;
use peft_kernels::{BlockFormat, PackedTensor};

#[test]
fn packs_and_unpacks_as_bitsandbytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nf4.safetensors");
    let recorded = read_safetensors(&path).expect("the fixture");
    let floats = |key: &str| recorded[key].try_to_vec::<f32>().expect("f32");
    let (values, absmax) = (floats("values"), floats("absmax"));
    let codes = recorded["packed"].try_to_vec::<u8>().expect("u8");

    let packed = PackedTensor::four_bit(vec![2, 128], &values).expect("whole blocks");
    assert_eq!(packed.format(), BlockFormat::NF4);
    for (block, bytes) in packed.bytes().as_chunks::<36>().0.iter().enumerate() {
        let scale = f32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        assert_eq!(scale, absmax[block], "scale of block {block}");
        // Of zeros any index will do.
        if scale > 0.0 {
            assert_eq!(bytes[4..], codes[32 * block..32 * (block + 1)], "block {block}");
        }
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let unpacked = packed.values().try_to_vec::<f32>().expect("f32");
    // Zeros of the reference's block of zeros may have a sign.
    let positive = |values: Vec<f32>| bits(values.into_iter().map(|v| v + 0.0).collect());
    assert_eq!(positive(unpacked), positive(floats("unpacked")));
}
