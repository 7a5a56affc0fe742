//! Checkpoints: models' directories on disk, and the loader that takes their tensors.

mod fields;
mod file;
pub(crate) mod gguf;
mod loader;

pub use fields::config_fields;
pub use file::Checkpoint;
pub use gguf::{BlockFormat, Gguf, PackedTensor, TensorInfo};
pub use loader::{LoadReport, Loader};
