#![doc = include_str!("../README.md")]

mod config;
mod drop_layers;
mod ladder;
mod network;
mod prune;
mod stacks;

pub use config::{LadderSideConfig, SideInit};
pub use drop_layers::DropLayers;
pub use ladder::LadderSide;
