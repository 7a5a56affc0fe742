#![doc = include_str!("../README.md")]

mod accounting;
mod activation;
mod base;
mod compose;
mod erased;
mod error;
mod format;
mod hooks;
mod layer;
mod merge;
mod method;
mod modules_to_save;
mod probe;
mod registry;
mod reparameterize;
mod site;
mod sizes;
mod targets;
mod trainable_tokens;
mod weight;

pub use accounting::{Accounting, SiteCounts, num_trainable};
pub use activation::Activation;
pub use base::{Base, BaseSite};
pub use compose::{
    Average, Composition, Fuse, FusionConfig, GateNames, Gated, PerLayer, PerRow, Stack,
};
pub use erased::BoxedMethod;
pub use error::{Error, Result};
pub use format::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterCheck, AdapterConfig, Dialect, Exchange,
    HubModel, HubModules, Key, KeyProblem, Layout, SavedTask, TaskType, TensorMap, TensorSpec,
    read_pytorch, read_safetensors, write_atomically, write_safetensors,
};
pub use hooks::{Embedded, Hooks, KeyValue};
pub use layer::{LinearLayer, NormLayer, ResidualLayer, ResidualStates};
pub use merge::{merged_tensors, tensors_under, unmerged_tensors};
pub use method::{
    Calibration, Change, ComputationFunction, Method, MethodCard, MethodConfig, Progress,
};
pub use modules_to_save::ModulesToSave;
pub use probe::{Observation, Probe};
pub use registry::{AnyConfig, MethodEntry, Registry, configure};
pub use reparameterize::{Reparameterized, reparameterize};
pub use site::{Role, Site, SiteKind};
pub use sizes::Size;
pub use targets::{ModuleNames, OneOrMany, PatternMap, Targets, pattern_value, unmatched_patterns};
pub use trainable_tokens::TokenIndices;
pub use weight::{FrozenWeight, PackedWeight};
