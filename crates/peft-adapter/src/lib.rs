#![doc = include_str!("../README.md")]

mod adapter;
mod adapters_format;
mod bottleneck;
mod config;
mod fields;
mod fuse;
mod fusion_config;
mod invertible;
mod krona;
mod mixture;
mod phm;
mod preset;
mod projection;
mod reft;
mod sparse;
mod validate;

pub use adapter::AdapterLayer;
pub use bottleneck::Bottleneck;
pub use config::BottleneckConfig;
pub use fields::{
    HypercomplexInit, InitWeights, InvertibleKind, PhmInit, ReductionFactor, ResidualBeforeNorm,
    Scaling,
};
pub use fuse::Fuse;
pub use fusion_config::FusionConfig;
pub use invertible::{Coupling, Glow, Nice, Subnet};
pub use krona::{KronaAdapter, KronaAdapterConfig, KronaAdapterLayer, krona_presets};
pub use mixture::Mixture;
pub use phm::{Factors, PhmLinear, SharedPhm, Slices, kronecker_sum};
pub use preset::presets;
pub use projection::Projection;
pub use reft::{
    Directions, Orthogonal, Reft, ReftConfig, ReftLayer, ReftLayers, ReftUnit, reft_presets,
};
pub use sparse::{Pruning, SparseAdapterConfig, SparseLinear, Survivors, sparse_presets};
