//! The adapter directory: HF PEFT's own layout.

mod atomic;
mod config;
mod directory;
mod exchange;
mod hub;
mod pytorch;
mod tensors;

pub use atomic::write_atomically;
pub use config::{AdapterConfig, TaskType};
pub use directory::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterCheck};
pub use exchange::{Dialect, Exchange, Key, KeyProblem, Layout, TensorSpec};
pub use hub::{HubModel, SavedTask};
pub use pytorch::read_pytorch;
pub use tensors::{TensorMap, read_safetensors, write_safetensors};
