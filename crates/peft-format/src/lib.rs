#![doc = include_str!("../README.md")]

mod accounting;
mod adapter;
mod adapters;
mod beside;
mod composition;
mod config;
mod directory;
mod error;
mod files;
mod keys;
mod measured;
mod merge;
mod registry;
mod saved_task;
mod setup;

pub use accounting::{Accounting, SiteCounts};
pub use adapter::Adapter;
pub use composition::Composition;
pub use config::{AdapterConfig, TaskType};
pub use directory::{ADAPTER_CONFIG, ADAPTER_START, ADAPTER_WEIGHTS, AdapterCheck};
pub use error::{Error, Result};
pub use files::{
    SafetensorsFile, create_directory, is_unfinished, read_pytorch, read_safetensors,
    remove_unfinished, sync_directory, write_atomically, write_safetensors,
};
pub use measured::MeasuredCounts;
pub use merge::{merged_tensors, tensors_under, unmerged_tensors};
pub use registry::{MethodEntry, Registry};
pub use saved_task::SavedTask;
pub use setup::AdapterSetup;
