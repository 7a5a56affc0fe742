//! Matrices of fewer bits, in blocks that share a scale.

mod format;
mod matrix;
#[cfg(feature = "flex")]
mod product;
mod tensor;

pub use format::BlockFormat;
pub use matrix::PackedMatrix;
pub use tensor::PackedTensor;
