use peft_conformance::{Expect, HostKind, conformance};
use peft_core::PatternMap;
use peft_lora::{DeloraConfig, LoraBias};

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> DeloraConfig {
    DeloraConfig { rank, lambda: 1.5, targets: all_linear(), ..DeloraConfig::default() }
}

conformance!(delora, of_rank(3), trains(over_all(|[d_in, d_out]| 3 * (d_in + d_out) + 1)));
conformance!(
    patterns,
    DeloraConfig {
        rank_pattern: PatternMap::from([("query".into(), 2)]),
        lambda_pattern: PatternMap::from([("value".into(), 0.5)]),
        ..of_rank(3)
    },
    // Named as BERT has them.
    Expect { unfit: HostKind::OTHERS, ..Expect::default() }
);
conformance!(biases, DeloraConfig { bias: LoraBias::LoraOnly, ..of_rank(2) });
conformance!(
    random,
    DeloraConfig { init: false, lambda: 0.5, ..of_rank(2) },
    Expect { identity_at_init: false, ..Expect::default() }
);
