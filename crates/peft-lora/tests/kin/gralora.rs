use peft_conformance::{Expect, HostKind, conformance};
use peft_lora::{GraloraConfig, LoraBias};

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> GraloraConfig {
    GraloraConfig { rank, alpha: 5.0, targets: all_linear(), ..GraloraConfig::default() }
}

conformance!(gralora, of_rank(4), trains(over_all(|[d_in, d_out]| 4 * (d_in + d_out))));
conformance!(
    hybrid,
    GraloraConfig { blocks: 4, hybrid_r: 2, ..of_rank(4) },
    // T5's heads are 30 wide.
    Expect { unfit: &[HostKind::T5], ..trains(over_all(|[d_in, d_out]| 6 * (d_in + d_out))) }
);
conformance!(biases, GraloraConfig { bias: LoraBias::All, ..of_rank(2) });
conformance!(
    random,
    GraloraConfig { init: false, alpha: 1.0, ..of_rank(2) },
    Expect { identity_at_init: false, ..Expect::default() }
);
