//! Unpacking, and products with packed matrices beside the same product with a tensor:
//! `cargo bench -p peft-kernels -p peft-cli --bench product`.

use burn::tensor::{Device, Distribution, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use peft_core::{FrozenWeight, PackedWeight};
use peft_kernels::{BlockFormat, PackedMatrix, PackedTensor};

fn main() {
    divan::main();
}

const FORMATS: [BlockFormat; 6] = [
    BlockFormat::F16,
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q4_K,
    BlockFormat::NF4,
];

/// A feed-forward layer of a small language model.
const SHAPE: [usize; 2] = [1536, 768];

/// A matrix of blocks that are as good as any: small scales, every index.
fn matrix(format: BlockFormat) -> PackedMatrix {
    let blocks = SHAPE[0] * SHAPE[1] / format.values();
    let bytes = (0..blocks * format.bytes()).map(|i| (i % 61) as u8).collect();
    let packed = PackedTensor::new(format, SHAPE.to_vec(), bytes).expect("whole blocks");
    PackedMatrix::new(packed, &Device::flex())
}

#[divan::bench(args = FORMATS)]
fn unpack(bencher: Bencher<'_, '_>, format: BlockFormat) {
    let matrix = matrix(format);
    bencher.counter(ItemsCount::new(SHAPE[0] * SHAPE[1])).bench(|| matrix.tensor().values());
}

/// `x Pᵀ` for this many rows of `x`.
fn product(bencher: Bencher<'_, '_>, weight: &FrozenWeight, rows: usize) {
    let shape = [rows, weight.dims()[0]];
    let input = Tensor::<2>::random(shape, Distribution::Default, &Device::flex());
    bencher.bench(|| weight.linear(input.clone(), None));
}

#[divan::bench(args = FORMATS, consts = [1, 16, 512])]
fn packed<const ROWS: usize>(bencher: Bencher<'_, '_>, format: BlockFormat) {
    product(bencher, &FrozenWeight::Packed(matrix(format).transpose()), ROWS);
}

#[divan::bench(consts = [1, 16, 512])]
fn dense<const ROWS: usize>(bencher: Bencher<'_, '_>) {
    let weight = matrix(BlockFormat::Q8_0).dense();
    // As models hold it: row-major `[d_in, d_out]`.
    let weight = Tensor::<2>::from_data(weight.transpose().into_data(), &Device::flex());
    product(bencher, &weight.into(), ROWS);
}
