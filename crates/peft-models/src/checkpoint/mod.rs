//! Checkpoints: models' directories on disk, and the loader that takes their tensors.

mod fields;
mod file;
pub(crate) mod gguf;
mod loader;
mod precision;
mod shapes;
mod shards;

pub use fields::config_fields;
pub(crate) use fields::is_there;
pub use file::Checkpoint;
pub use gguf::{Gguf, TensorInfo};
pub use loader::{LoadReport, Loader, transposed};
pub use precision::Precision;
pub use shards::ShardIndex;
