//! Representation fine-tuning: LoReFT, NoReFT and DiReFT.

mod adapters_format;
mod config;
mod intervention;
mod orthogonal;

pub use config::{ReftConfig, ReftLayers, reft_presets};
pub use intervention::{Reft, ReftLayer, ReftUnit};
pub use orthogonal::{Directions, Orthogonal};
