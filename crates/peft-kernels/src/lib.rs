#![doc = include_str!("../README.md")]
// The one crate that may: every block says why it is sound.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod activation;
#[cfg(feature = "allocator")]
mod allocator;
mod attention;
mod cross_entropy;
mod decode;
mod dropout;
#[cfg(feature = "flex")]
mod elementwise;
#[cfg(feature = "flex")]
mod fused;
mod linear;
#[cfg(feature = "flex")]
mod matmul;
mod norm;
mod optimizer;
mod packed;
#[cfg(feature = "flex")]
mod prepacked;
pub mod profile;
mod rotary;
mod segmented;
mod simd;
mod weight;

pub use activation::Activation;
#[cfg(feature = "allocator")]
pub use allocator::TensorAllocator;
pub use attention::{
    AttentionInputs, AttentionRow, AttentionSpec, Buckets, attends_by_row, attention,
};
pub use cross_entropy::{cross_entropy, cross_entropy_of_product};
pub use decode::Read;
pub use dropout::Dropout;
pub use linear::{LinearParts, LowRankPart};
pub use norm::{Norm, sum};
pub use optimizer::AdamW;
pub use packed::{BlockFormat, PackedMatrix, PackedTensor};
#[cfg(feature = "flex")]
pub use prepacked::PrepackedMatrix;
pub use rotary::turned;
pub use segmented::{Segment, segmented};
pub use weight::{Element, PackedWeight, laid_out};
