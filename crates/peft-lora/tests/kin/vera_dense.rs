use peft_conformance::{Expect, HostKind, conformance};
use peft_lora::DenseVeraConfig;

use super::{HIDDEN, LAYERS, trains};

conformance!(
    vera_dense,
    DenseVeraConfig { rank: 3, alpha: 5.0, ..DenseVeraConfig::default() },
    // Its queries and values are of two shapes.
    Expect {
        unfit: &[HostKind::Llama],
        ..trains(3 * 2 * HIDDEN + LAYERS * 2 * (3 * 3 + HIDDEN * HIDDEN))
    }
);
conformance!(
    started_elsewhere,
    DenseVeraConfig { rank: 4, d_initial: 0.3, b_initial: 0.2, ..DenseVeraConfig::default() },
    Expect { identity_at_init: false, unfit: &[HostKind::Llama], ..Expect::default() }
);
