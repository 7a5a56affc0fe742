#![doc = include_str!("../README.md")]

mod config;
mod fastfood;
mod hadamard;
mod said;

pub use config::{SaidConfig, presets};
pub use fastfood::{Fastfood, FastfoodBlocks};
pub use hadamard::walsh_hadamard;
pub use said::Said;
