//! The adapter directory, in HF PEFT's layout and in adapter-hub/adapters'.

mod adapters;
mod adapters_head;
mod adapters_model;
mod adapters_modules;
mod atomic;
mod config;
mod directory;
mod exchange;
mod pytorch;
mod tensors;

pub use adapters::SavedTask;
pub use adapters_model::AdaptersModel;
pub use adapters_modules::AdaptersModules;
pub use atomic::{sync_directory, write_atomically};
pub use config::{AdapterConfig, TaskType};
pub use directory::{ADAPTER_CONFIG, ADAPTER_START, ADAPTER_WEIGHTS, Adapter, AdapterCheck};
pub use exchange::{Dialect, Exchange, Key, KeyProblem, Layout, TensorSpec};
pub use pytorch::read_pytorch;
pub use tensors::{TensorMap, read_safetensors, write_safetensors};

/// Reads every tensor of a file of either kind.
fn read_tensors(path: &std::path::Path) -> crate::Result<TensorMap> {
    match path.extension().is_some_and(|extension| extension == "bin") {
        true => read_pytorch(path),
        false => read_safetensors(path),
    }
}
