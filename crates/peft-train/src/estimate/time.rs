//! How long a step takes.

use super::costs::{Cost, Costs};
use super::{Machine, Weights, Workload};

/// Products of training beside the one that the machine was measured by.
const PRODUCTS: f64 = 0.86;
/// Attention, whose products are small and have exponentials between them, beside the same.
const ATTENTION: f64 = 0.35;
/// Packed weights, which are unpacked as the product goes.
const PACKED: f64 = 0.52;
/// Numbers that the optimizer, and what clips gradients, read and write for each parameter, operation by
/// operation.
const OPTIMIZER: f64 = 45.0;

/// The operations of a step, and its seconds.
pub(super) fn of_step(
    costs: &Costs,
    trainable: usize,
    workload: Workload,
    machine: &Machine,
) -> (f64, f64) {
    let Costs { embeddings, layers, head, .. } = costs;
    let mut all = Total::default();
    for part in layers.iter().chain([embeddings, head]) {
        all.add(part, 0);
        all.add(part, 1);
    }
    if workload.gradient_checkpointing {
        let below = &layers[..layers.len().saturating_sub(costs.on_tape)];
        below.iter().filter(|layer| layer.is_tracked).for_each(|layer| all.add(layer, 0));
    }
    all.moved += OPTIMIZER * trainable as f64;
    let packed = match workload.weights {
        Weights::Packed(_) => PACKED,
        Weights::LaidOut(_) => 1.0,
    };
    let seconds = all.products / (machine.product_rate * PRODUCTS * packed)
        + all.attention / (machine.product_rate * ATTENTION)
        + all.moved / machine.number_rate;
    (all.products + all.attention, seconds)
}

#[derive(Default)]
struct Total {
    products: f64,
    attention: f64,
    moved: f64,
}

impl Total {
    /// With a part's forward pass, 0, or its backward pass, 1.
    fn add(&mut self, part: &Cost, direction: usize) {
        self.products += part.products[direction];
        self.attention += part.attention[direction];
        self.moved += part.moved[direction];
    }
}
