use peft_conformance::{Expect, conformance};
use peft_lora::{LoraBias, VeraConfig};

use super::{HIDDEN, LAYERS, all_linear, over_all, trains};

fn on_all() -> VeraConfig {
    VeraConfig { rank: 5, targets: all_linear(), ..VeraConfig::default() }
}

conformance!(
    vera,
    VeraConfig { rank: 5, ..VeraConfig::default() },
    trains(LAYERS * 2 * (5 + HIDDEN))
);
conformance!(slices, on_all(), trains(over_all(|[_, d_out]| 5 + d_out)));
conformance!(
    projections_from_a_seed,
    VeraConfig { save_projection: false, projection_prng_key: 7, ..on_all() },
    trains(over_all(|[_, d_out]| 5 + d_out))
);
conformance!(biases, VeraConfig { bias: LoraBias::LoraOnly, ..on_all() });
conformance!(
    random,
    VeraConfig { init: false, rank: 2, ..VeraConfig::default() },
    Expect { identity_at_init: false, ..Expect::default() }
);
