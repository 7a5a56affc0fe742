use peft_conformance::{Expect, conformance};
use peft_lora::{LoraBias, RandloraConfig};

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> RandloraConfig {
    RandloraConfig { rank, alpha: 6.0, targets: all_linear(), ..RandloraConfig::default() }
}

/// `r n` and `n` times the smaller side, of 24 in every layer.
fn values(rank: usize) -> usize {
    let count = 24usize.div_ceil(rank);
    over_all(|_| rank * count + count * 24)
}

conformance!(randlora, of_rank(8), trains(values(8)));
// Of more values than a full rank has.
conformance!(uneven, of_rank(7), trains(values(7)));
conformance!(
    bases_from_a_seed,
    RandloraConfig { save_projection: false, projection_prng_key: 3, ..of_rank(8) },
    trains(values(8))
);
conformance!(
    sparse,
    RandloraConfig { sparse: true, bias: LoraBias::LoraOnly, ..of_rank(8) },
    // Two columns of few values can be the same.
    Expect { reaches_change: false, ..Expect::default() }
);
conformance!(
    random,
    RandloraConfig { init: false, alpha: 1.0, ..of_rank(8) },
    Expect { identity_at_init: false, ..Expect::default() }
);
