//! Hybrids have the properties that every method must have.

use peft_adapter::{BottleneckConfig, ReductionFactor};
use peft_conformance::{Expect, conformance};
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use peft_unipelt::UniPeltConfig;

const HIDDEN: usize = 24;
const LAYERS: usize = 2;
const BOTTLENECK: usize = 6;
const RANK: usize = 3;
const PREFIX: usize = 4;

fn prefix() -> PrefixTuningConfig {
    PrefixTuningConfig {
        num_virtual_tokens: PREFIX,
        shift_positions: false,
        ..PrefixTuningConfig::default()
    }
}

fn adapter() -> BottleneckConfig {
    BottleneckConfig {
        reduction_factor: ReductionFactor::Same((HIDDEN / BOTTLENECK) as f64),
        ..BottleneckConfig::default()
    }
}

fn lora() -> LoraConfig {
    LoraConfig { rank: RANK, alpha: 7.0, ..LoraConfig::default() }
}

const PREFIX_VALUES: usize = PREFIX * 2 * LAYERS * HIDDEN;
const ADAPTER_VALUES: usize = LAYERS * (2 * HIDDEN * BOTTLENECK + BOTTLENECK + HIDDEN);
const LORA_VALUES: usize = LAYERS * 2 * RANK * 2 * HIDDEN;
/// One at each attention, at each feed-forward sublayer, at each query and value.
const GATES: usize = LAYERS * 4 * (HIDDEN + 1);

fn trains(trainable: usize) -> Expect {
    // A prefix takes some of the attention from the start, and adapters start near the base only.
    Expect { identity_at_init: false, trainable: Some(trainable), ..Expect::default() }
}

conformance!(
    unipelt,
    UniPeltConfig {
        prefix: Some(prefix()),
        adapter: Some(adapter()),
        lora: Some(lora()),
        use_gating: true
    },
    trains(PREFIX_VALUES + ADAPTER_VALUES + LORA_VALUES + GATES)
);

conformance!(
    mam,
    UniPeltConfig {
        prefix: Some(prefix()),
        adapter: Some(BottleneckConfig {
            is_parallel: true,
            original_ln_before: false,
            ..adapter()
        }),
        lora: None,
        use_gating: false
    },
    trains(PREFIX_VALUES + ADAPTER_VALUES)
);

conformance!(
    gated_lora,
    UniPeltConfig { prefix: None, adapter: None, lora: Some(lora()), use_gating: true },
    Expect { identity_at_init: true, ..trains(LORA_VALUES + LAYERS * 2 * (HIDDEN + 1)) }
);
