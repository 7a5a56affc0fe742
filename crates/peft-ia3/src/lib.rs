#![doc = include_str!("../README.md")]

mod adapters_format;
mod config;
mod ia3;

pub use config::Ia3Config;
pub use ia3::{Ia3, Ia3Layer};
