//! Plans: other methods in other layers.

mod config;
mod group;
mod grouping;
mod layers;

pub use config::PlanConfig;
pub use group::PlanGroup;
pub use grouping::Grouping;
pub use layers::LayerSet;
