//! Matrices of fewer bits, in blocks that share a scale.

#[cfg(feature = "flex")]
mod few;
mod format;
#[cfg(feature = "flex")]
mod layer;
#[cfg(feature = "flex")]
mod many;
mod matrix;
#[cfg(feature = "flex")]
mod narrow;
#[cfg(feature = "flex")]
mod product;
mod tensor;

pub use format::BlockFormat;
pub use matrix::PackedMatrix;
pub use tensor::PackedTensor;
