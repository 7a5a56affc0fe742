#![doc = include_str!("../README.md")]

// The floors of the crate: a module uses only those of floors above it in this list, and
// `cargo xtask ci` checks that.

// What everything speaks of.
mod error;
mod rows;
mod site;
mod torch_random;
mod weight;

// Tensors by key, one forward pass, parts of projections.
mod exchange;
mod matrices;
mod pass;

// The frozen model, and what may happen to its layers.
mod base;
mod edit;

// Where a method acts.
mod hooks;
mod targets;
mod trained;

// What a method may see before it is trained.
mod adapters;
mod calibration;

// What it is given.
mod context;

// What it is.
mod method;

// Methods of this crate, and methods made of methods.
mod compose;
mod modules_to_save;
mod reparameterize;

pub use adapters::{
    AdaptersLora, AdaptersModel, AdaptersModules, whole_if_it_is, with_adapters_defaults,
};
pub use base::{Base, BaseSite};
pub use calibration::{Calibration, base_gradients, fisher_diagonal, layer_inputs};
pub use compose::{
    Acts, AdapterPool, Average, GateKind, Gated, PerLayer, Split, Stack, refuse_stack,
};
pub use context::{Encode, InitContext, LossContext, Progress, StepContext};
pub use edit::{
    Added, Block, Change, Edit, Edits, Gate, GateOn, Kronecker, KroneckerShape, LinearLayer,
    LowRank, Magnitude, NormEdit, NormLayer, OutputMap, Replaced, Rotate, Rotation, Routed, Scale,
    Side, Sparse, TableEdit, TableRows, VectorEdit, WeightMap, nearest_divisors,
};
pub use error::{Error, Result};
pub use exchange::{Dialect, Entries, Exchange, Key, KeyProblem, Layout, TensorMap, TensorSpec};
pub use hooks::{
    Beside, ExtraKeys, Hooks, Insert, Intervention, KeyValues, Piece, RowKeys, SideNetwork,
    SideNetworks, Stage, SublayerEnd, SublayerFunction, Tokens,
};
pub use matrices::{AttentionMatrices, AttentionMatrix};
pub use method::{
    AnyConfig, BoxedMethod, ComputationFunction, Method, MethodCard, MethodConfig, Size, change_at,
    configure, field_names, merge_obstacle,
};
pub use modules_to_save::{ModulesToSave, TokenIndices};
pub use pass::{EmptyPass, Memo, MemoKey, Mode, Observation, Pass, Probe};
pub use peft_kernels::{Activation, PackedTensor, PackedWeight};
pub use reparameterize::{Reparameterized, reparameterize};
pub use rows::{Route, Row, Rows, Slots, Words};
pub use site::{AttentionHeads, Role, Site, SiteKind};
pub use targets::{ModuleNames, OneOrMany, PatternMap, Targets, pattern_value, unmatched_patterns};
pub use torch_random::{TorchRandom, bf16, torch_permutation};
pub use trained::{BiasChoice, TrainedBiases, TrainedNorm, num_trainable, trained_copy};
pub use weight::FrozenWeight;
