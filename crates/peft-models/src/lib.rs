#![doc = include_str!("../README.md")]

mod architectures;
mod blocks;
mod body;
mod cache;
mod checkpoint;
mod config;
mod error;
mod forward;
mod generation;
mod head;
mod input;
mod ladder;
mod layer_input;
mod logits;
mod model;
mod outputs;
mod recompute;
mod tokenizer;

pub use cache::Cache;
pub use checkpoint::{
    Checkpoint, Gguf, LoadReport, Precision, ShardIndex, TensorInfo, config_fields,
};
pub use config::{Architecture, ModelConfig, Task};
pub use error::{Error, Result};
pub use forward::Forward;
pub use generation::{EarlyStopping, GenerationConfig, Generator, OnToken};
pub use input::ModelInput;
pub use layer_input::{LayerInput, TextStates};
pub use logits::Logits;
pub use model::{Model, ModelTask, Place};
pub use outputs::ProblemType;
pub use recompute::Recompute;
pub use tokenizer::{
    ADDED_TOKENS, AddedTokens, ContextWindow, DecodeStream, Encoded, EncodedWords, TextTokenizer,
};
