#![doc = include_str!("../README.md")]

#[cfg(feature = "adapter")]
pub use peft_adapter as adapter;
pub use peft_core as core;
pub use peft_data as data;
pub use peft_format as format;
#[cfg(feature = "ia3")]
pub use peft_ia3 as ia3;
#[cfg(feature = "lora")]
pub use peft_lora as lora;
pub use peft_models as models;
#[cfg(feature = "oft")]
pub use peft_oft as oft;
#[cfg(feature = "prefix")]
pub use peft_prefix as prefix;
#[cfg(feature = "side")]
pub use peft_side as side;
#[cfg(feature = "sparse")]
pub use peft_sparse as sparse;
#[cfg(feature = "spectral")]
pub use peft_spectral as spectral;
#[cfg(feature = "subspace")]
pub use peft_subspace as subspace;
pub use peft_train as train;
#[cfg(feature = "unipelt")]
pub use peft_unipelt as unipelt;

mod devices;
mod published;
mod registry;

pub use devices::{DeviceError, device, device_names};
pub use published::{PublishedCounts, published};
pub use registry::registry;

/// The example of the workspace's README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RootReadme;
