//! GGUF, the checkpoint format of llama.cpp: one file with tensors, most of them packed in blocks,
//! the model's settings and the tokenizer.

mod config;
mod container;
mod names;
mod read;
mod tokenizer;
mod types;

pub(crate) use config::config_fields;
pub use container::{Gguf, TensorInfo};
pub(crate) use names::{shapes, tensors};
pub(crate) use tokenizer::tokenizer;
