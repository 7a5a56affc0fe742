#![doc = include_str!("../README.md")]

mod config;
mod hub;
mod init;
mod lora;
mod presets;

pub use config::{LoraBias, LoraConfig};
pub use init::LoraInit;
pub use lora::{Lora, LoraLayer};
pub use presets::presets;
