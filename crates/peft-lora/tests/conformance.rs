//! LoRA and its variants have the properties that every method must have.

use peft_conformance::{Expect, conformance};
use peft_core::{ModuleNames, PatternMap, Targets};
use peft_lora::{LoraBias, LoraConfig, LoraInit};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

/// Rank 3 at a scale of 7/3, on every linear layer but the head.
fn on_all_linear() -> LoraConfig {
    let targets = Targets {
        target_modules: Some(ModuleNames::Pattern("all-linear".into())),
        ..Targets::default()
    };
    LoraConfig { rank: 3, alpha: 7.0, targets, ..LoraConfig::default() }
}

/// `r (d_in + d_out)` over queries, keys, values, attention outputs and two feed-forward layers of
/// each layer, and the pooler.
const FACTORS: usize = 3 * (LAYERS * (4 * 2 * HIDDEN + 2 * (HIDDEN + INNER)) + 2 * HIDDEN);
/// One value per output of the same layers: a bias, or DoRA's magnitudes.
const OUTPUTS: usize = LAYERS * (4 * HIDDEN + INNER + HIDDEN) + HIDDEN;
/// The biases of the norms: one of the embeddings, two of each layer.
const NORM_BIASES: usize = (1 + 2 * LAYERS) * HIDDEN;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

conformance!(lora, on_all_linear(), trains(FACTORS));

conformance!(
    queries_and_values,
    LoraConfig { rank: 3, alpha: 7.0, ..LoraConfig::default() },
    trains(LAYERS * 2 * 3 * 2 * HIDDEN)
);

conformance!(rslora, LoraConfig { use_rslora: true, ..on_all_linear() }, trains(FACTORS));

conformance!(dora, LoraConfig { use_dora: true, ..on_all_linear() }, trains(FACTORS + OUTPUTS));

conformance!(pissa, LoraConfig { init: LoraInit::Pissa, ..on_all_linear() }, trains(FACTORS));

conformance!(gaussian, LoraConfig { init: LoraInit::Gaussian, ..on_all_linear() });

conformance!(
    random,
    LoraConfig { init: LoraInit::Random, ..on_all_linear() },
    Expect { identity_at_init: false, ..trains(FACTORS) }
);

conformance!(
    bias_all,
    LoraConfig { bias: LoraBias::All, ..on_all_linear() },
    trains(FACTORS + OUTPUTS + NORM_BIASES)
);

conformance!(
    bias_lora_only,
    LoraConfig { bias: LoraBias::LoraOnly, ..on_all_linear() },
    trains(FACTORS + OUTPUTS)
);

conformance!(
    patterns,
    LoraConfig {
        rank_pattern: PatternMap::from([
            ("layer.0.intermediate.dense".into(), 5),
            ("dense".into(), 2),
        ]),
        alpha_pattern: PatternMap::from([("query".into(), 1.5)]),
        ..on_all_linear()
    },
    // Rank 3 at queries, keys and values, 5 at one feed-forward layer, 2 at what is left.
    trains(
        LAYERS * 3 * 3 * 2 * HIDDEN
            + LAYERS * 2 * 2 * HIDDEN
            + (5 + 2) * (HIDDEN + INNER)
            + LAYERS * 2 * (HIDDEN + INNER)
            + 2 * 2 * HIDDEN
    )
);
