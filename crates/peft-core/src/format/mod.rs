//! The adapter directory: HF PEFT's own layout.

mod atomic;
mod config;
mod directory;
mod exchange;
mod tensors;

pub use atomic::write_atomically;
pub use config::{AdapterConfig, TaskType};
pub use directory::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterCheck};
pub use exchange::{Exchange, KeyProblem, Layout, TensorSpec};
pub use tensors::{TensorMap, read_safetensors, write_safetensors};
