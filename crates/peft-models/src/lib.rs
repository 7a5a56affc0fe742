#![doc = include_str!("../README.md")]

mod blocks;
mod checkpoint;
mod config;
mod encoder;
mod error;
mod head;
mod input;
mod tokenizer;

pub use blocks::Pass;
pub use checkpoint::{
    BlockFormat, Checkpoint, Gguf, LoadReport, PackedTensor, TensorInfo, config_fields,
};
pub use config::{Architecture, EncoderConfig, Task};
pub use encoder::{Encoder, EncoderTask};
pub use error::{Error, Result};
pub use input::EncoderInput;
pub use tokenizer::{Encoded, TextTokenizer};
