//! Checkpoints: Hugging Face directories on disk, and the loader that takes their tensors.

mod file;
mod loader;

pub use file::Checkpoint;
pub use loader::{LoadReport, Loader};
