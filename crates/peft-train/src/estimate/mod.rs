//! What a training step is expected to take, before anything is loaded.

mod beside;
mod costs;
mod machine;
mod memory;
mod time;

use peft_core::num_trainable;
use peft_format::Adapter;
use peft_kernels::Element;
use peft_models::Model;
use serde::Serialize;

use costs::Costs;
pub use machine::Machine;
pub use memory::Memory;

/// A batch, and how it is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Texts in a batch.
    pub texts: usize,
    /// Tokens of each text, and of each text that is written.
    pub tokens: usize,
    /// Outputs that the loss is computed from: one for each text, or one for each token.
    pub targets: usize,
    /// Whether layers are run again in the backward pass.
    pub gradient_checkpointing: bool,
    /// How the frozen weights are held.
    pub weights: Weights,
}

/// How frozen weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// Those of linear layers laid out for products, the others in f32.
    LaidOut(Element),
    /// Packed, in so many bytes all of them together.
    Packed(usize),
}

/// What a training step is expected to take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Values trained.
    pub trainable: usize,
    /// The most memory at once, by part.
    pub memory: Memory,
    /// The sum of its parts, in bytes.
    pub peak_bytes: usize,
    /// Floating point operations of a step.
    pub operations: f64,
    /// Seconds of a step.
    pub seconds: f64,
}

impl Estimate {
    /// Of training `adapter` over `model`, of which the shapes are enough.
    pub fn new(model: &Model, adapter: &Adapter, workload: Workload, machine: &Machine) -> Self {
        let costs = Costs::new(model.base(), &adapter.method, workload);
        // Beside a network that is what is on the tape, nothing is run again.
        let gradient_checkpointing = workload.gradient_checkpointing && !costs.is_beside;
        let workload = Workload { gradient_checkpointing, ..workload };
        let trainable = num_trainable(&adapter.method);
        let memory = Memory::new(model.base(), &costs, trainable, workload);
        let (operations, seconds) = time::of_step(&costs, trainable, workload, machine);
        let peak_bytes = memory.total();
        Self { trainable, memory, peak_bytes, operations, seconds }
    }
}
