#![doc = include_str!("../README.md")]

mod config;
mod hub;
mod init;
mod lora;

pub use config::{LoraBias, LoraConfig};
pub use init::LoraInit;
pub use lora::{Lora, LoraLayer};
