#![doc = include_str!("../README.md")]

mod adapters_format;
mod config;
mod init;
mod lora;
mod presets;

pub use config::{LoraBias, LoraConfig};
pub use init::LoraInit;
pub use lora::{Lora, LoraLayer};
pub use presets::presets;
