#![doc = include_str!("../README.md")]

pub use peft_core as core;
#[cfg(feature = "lora")]
pub use peft_lora as lora;
pub use peft_models as models;
pub use peft_train as train;

mod devices;
mod registry;

pub use devices::{DeviceError, device, device_names};
pub use registry::registry;

/// The example of the workspace's README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RootReadme;
