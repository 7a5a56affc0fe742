#![doc = include_str!("../README.md")]

mod adapters_format;
mod config;
mod part;
mod plan;
mod presets;

pub use config::UniPeltConfig;
pub use part::Part;
pub use plan::{Grouping, LayerSet, PlanConfig, PlanGroup};
pub use presets::{plan_presets, presets};
