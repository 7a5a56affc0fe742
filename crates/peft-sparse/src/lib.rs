#![doc = include_str!("../README.md")]

mod bitfit;
mod head;
mod layer_group;
mod ln_tuning;
mod select;

pub use bitfit::{BiasTerms, BitFit, BitFitConfig};
pub use head::{HeadOnly, HeadOnlyConfig};
pub use layer_group::{LayerChoice, LayerGroup, LayerGroupConfig, ModuleChoice, presets};
pub use ln_tuning::{LnTuning, LnTuningConfig};
