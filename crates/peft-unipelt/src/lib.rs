#![doc = include_str!("../README.md")]

mod config;
mod hub;
mod presets;

pub use config::UniPeltConfig;
pub use presets::presets;
