//! GGUF, the checkpoint format of llama.cpp: one file with tensors, most of them packed in blocks,
//! the model's settings and the tokenizer.

mod blocks;
mod config;
mod container;
mod k_blocks;
mod names;
mod packed;
mod read;
mod tokenizer;

pub use blocks::BlockFormat;
pub(crate) use config::config_fields;
pub use container::{Gguf, TensorInfo};
pub(crate) use names::tensors;
pub use packed::PackedTensor;
pub(crate) use tokenizer::tokenizer;
