#![doc = include_str!("../README.md")]

mod accounting;
mod activation;
mod attention;
mod base;
mod calibration;
mod closed;
mod compose;
mod context;
mod edit;
mod erased;
mod error;
mod format;
mod hooks;
mod matrices;
mod merge;
mod method;
mod modules_to_save;
mod pass;
mod registry;
mod reparameterize;
mod rows;
mod site;
mod sizes;
mod sublayer;
mod targets;
mod tokens;
mod trainable_tokens;
mod trained;
mod weight;

pub use accounting::{Accounting, SiteCounts, change_at, num_trainable};
pub use activation::Activation;
pub use attention::{ExtraKeys, KeyValues, RowKeys};
pub use base::{Base, BaseSite};
pub use calibration::{Calibration, base_gradients, layer_inputs};
pub use compose::{AdapterPool, Average, Composition, GateKind, Gated, PerLayer, Stack};
pub use context::{Encode, InitContext, LossContext, Progress, StepContext};
pub use edit::{
    Edit, Edits, Gate, GateOn, LinearLayer, LowRank, Magnitude, NormEdit, NormLayer, OutputMap,
    Replaced, Rotate, Routed, Scale, Side, Sparse, TableEdit, TableRows, VectorEdit, WeightMap,
};
pub use erased::BoxedMethod;
pub use error::{Error, Result};
pub use format::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterCheck, AdapterConfig, AdaptersModel,
    AdaptersModules, Dialect, Exchange, Key, KeyProblem, Layout, SavedTask, TaskType, TensorMap,
    TensorSpec, read_pytorch, read_safetensors, sync_directory, write_atomically,
    write_safetensors,
};
pub use hooks::Hooks;
pub use matrices::{AttentionMatrices, AttentionMatrix};
pub use merge::{merge_obstacle, merged_tensors, tensors_under, unmerged_tensors};
pub use method::{Change, ComputationFunction, Method, MethodCard, MethodConfig};
pub use modules_to_save::ModulesToSave;
pub use pass::{EmptyPass, Memo, MemoKey, Mode, Observation, Pass, Probe};
pub use registry::{AnyConfig, MethodEntry, Registry, configure};
pub use reparameterize::{Reparameterized, reparameterize};
pub use rows::{Row, Rows, Slots};
pub use site::{Role, Site, SiteKind};
pub use sizes::Size;
pub use sublayer::{Insert, SublayerEnd, SublayerFunction};
pub use targets::{ModuleNames, OneOrMany, PatternMap, Targets, pattern_value, unmatched_patterns};
pub use tokens::{Piece, Stage, Tokens};
pub use trainable_tokens::TokenIndices;
pub use trained::{TrainedNorm, trained_copy};
pub use weight::{FrozenWeight, PackedWeight};
