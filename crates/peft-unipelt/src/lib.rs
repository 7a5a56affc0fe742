#![doc = include_str!("../README.md")]

mod adapters_format;
mod config;
mod presets;

pub use config::UniPeltConfig;
pub use presets::presets;
