#![doc = include_str!("../README.md")]
// The one crate that may: every block says why it is sound.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "flex")]
mod matmul;
mod packed;
mod simd;
mod weight;

pub use packed::{BlockFormat, PackedMatrix, PackedTensor};
pub use weight::PackedWeight;
