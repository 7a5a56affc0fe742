use peft_conformance::{Expect, HostKind, conformance};
use peft_lora::{LoraBias, MissConfig, MissInit};

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> MissConfig {
    MissConfig { rank, targets: all_linear(), ..MissConfig::default() }
}

conformance!(miss, of_rank(4), trains(over_all(|[_, d_out]| 4 * d_out)));
// No whole number of groups.
conformance!(uneven, of_rank(7), trains(over_all(|[_, d_out]| 7 * d_out)));
conformance!(
    bat,
    MissConfig { init: MissInit::Bat, ..of_rank(2) },
    // Its blocks are never dropped.
    Expect { dropout: Some(&[]), ..trains(over_all(|[_, d_out]| 2 * d_out)) }
);
conformance!(
    mini,
    MissConfig { init: MissInit::Mini, mini_r: 2, ..of_rank(3) },
    trains(over_all(|_| 3 * 2))
);
conformance!(
    mini_wide,
    MissConfig { init: MissInit::Mini, mini_r: 8, ..of_rank(3) },
    // T5's heads are 30 wide.
    Expect { unfit: &[HostKind::T5], ..Expect::default() }
);
conformance!(biases, MissConfig { bias: LoraBias::All, ..of_rank(4) });
conformance!(
    random,
    MissConfig { init: MissInit::Random, ..of_rank(3) },
    Expect { identity_at_init: false, ..Expect::default() }
);
