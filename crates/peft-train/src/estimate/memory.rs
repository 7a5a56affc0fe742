//! The most memory at once.

use peft_core::{Base, SiteKind};
use peft_kernels::Element;
use serde::Serialize;

use super::costs::{Cost, Costs};
use super::{Weights, Workload};

/// The most memory of the process at once, by part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The frozen weights; those that are not packed are held a second time, laid out for the backward
    /// pass.
    pub base: usize,
    /// The method's parameters.
    pub adapter: usize,
    /// Their gradients.
    pub gradients: usize,
    /// The optimizer's two moments of each.
    pub optimizer: usize,
    /// What the forward pass keeps for the backward pass.
    pub activations: usize,
    /// What is computed and not kept, what is left of reading weights, and the program itself.
    pub workspace: usize,
}

/// The program, with its tokenizer, data and threads.
const PROGRAM: f64 = 30e6;

/// What the allocator still holds while training of the buffers through which weights went, as a share of
/// the weights.
const READ: f64 = 0.5;

/// What an allocator holds beside what is used of it, as a share.
const SLACK: f64 = 0.06;

impl Memory {
    pub(super) fn new(base: &Base, costs: &Costs, trainable: usize, workload: Workload) -> Self {
        let parameters = trainable * size_of::<f32>();
        let back = |cost: &Cost| cost.weights_back;
        let back: f64 = costs.layers.iter().map(back).sum::<f64>() + costs.head.weights_back;
        let (read, base) = match workload.weights {
            Weights::Packed(bytes) => (bytes, bytes),
            Weights::LaidOut(element) => {
                let linear = base.sites().filter(|site| site.kind == SiteKind::Linear);
                let linear: usize = linear.map(|site| site.num_params()).sum();
                let read = size_of::<f32>() * base.num_params();
                let saved = linear * (size_of::<f32>() - element.num_bytes());
                // A table of words that is multiplied with in another type is there in both.
                let tied = base.sites().filter(|site| site.tied_to.is_some());
                let tied: usize = match element {
                    Element::F32 => 0,
                    Element::Bf16 => tied.map(|site| site.num_params()).sum(),
                };
                let laid_out = element.num_bytes() * (back as usize + 2 * tied);
                (read, read - saved + laid_out)
            }
        };
        let all: f64 = costs.layers.iter().map(|cost| cost.kept).sum();
        let largest = costs.layers.iter().map(|cost| cost.kept).fold(0.0, f64::max);
        let passing = costs.layers.iter().map(|cost| cost.passing).fold(0.0, f64::max);
        let of_layers = match workload.gradient_checkpointing {
            // What enters each sublayer, and one layer at a time.
            true => costs.sublayers as f64 * costs.hidden + largest,
            false => all,
        };
        let kept = costs.embeddings.kept + of_layers + costs.head.kept;
        let passing = passing.max(costs.head.passing);
        let bytes = |numbers: f64| (numbers * size_of::<f32>() as f64) as usize;
        let slack = SLACK * (kept + passing);
        Self {
            base,
            adapter: parameters,
            gradients: parameters,
            optimizer: 2 * parameters,
            activations: bytes(kept),
            workspace: bytes(passing + slack) + (PROGRAM + READ * read as f64) as usize,
        }
    }

    /// The sum of all parts.
    pub fn total(&self) -> usize {
        let Self { base, adapter, gradients, optimizer, activations, workspace } = self;
        base + adapter + gradients + optimizer + activations + workspace
    }
}
