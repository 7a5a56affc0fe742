#![doc = include_str!("../README.md")]

mod adapters_format;
mod config;
mod part;
mod presets;

pub use config::UniPeltConfig;
pub use part::Part;
pub use presets::presets;
