use peft_conformance::{Expect, HostKind, conformance};
use peft_core::{ModuleNames, PatternMap, Targets};
use peft_lora::{HiraConfig, HiraInit};

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> HiraConfig {
    HiraConfig { rank, targets: all_linear(), ..HiraConfig::default() }
}

conformance!(hira, of_rank(3), trains(over_all(|[d_in, d_out]| 3 * (d_in + d_out))));
conformance!(
    embeddings,
    HiraConfig {
        targets: Targets {
            target_modules: Some(ModuleNames::list(["query", "word_embeddings"])),
            ..Targets::default()
        },
        rank_pattern: PatternMap::from([("query".into(), 3)]),
        ..of_rank(2)
    },
    Expect {
        // Named as BERT has them.
        unfit: HostKind::OTHERS,
        ..Expect::default()
    }
);
conformance!(gaussian, HiraConfig { init: HiraInit::Gaussian, ..of_rank(2) });
conformance!(
    random,
    HiraConfig { init: HiraInit::Random, ..of_rank(2) },
    Expect { identity_at_init: false, ..Expect::default() }
);
