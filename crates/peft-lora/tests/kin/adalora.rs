use peft_conformance::{Expect, conformance};
use peft_core::{InitContext, MethodConfig};
use peft_lora::{AdaloraConfig, LoraBias};
use serde_json::json;

use super::{all_linear, over_all, trains};

fn of_rank(init_r: usize) -> AdaloraConfig {
    AdaloraConfig { init_r, target_r: 1, targets: all_linear(), ..AdaloraConfig::default() }
}

/// What the budget is decided from, and what was decided.
const RUNNING: &[&str] = &["sensitivity", "uncertainty", "kept"];

conformance!(
    adalora,
    of_rank(3),
    Expect { running: RUNNING, ..trains(over_all(|[d_in, d_out]| 3 * (d_in + d_out + 1))) }
);
conformance!(
    biases,
    AdaloraConfig { bias: LoraBias::All, orth_reg_weight: 0.0, ..of_rank(3) },
    Expect { running: RUNNING, ..Expect::default() }
);
conformance!(
    random,
    AdaloraConfig { init: false, alpha: 0.1, ..of_rank(3) },
    Expect { identity_at_init: false, running: RUNNING, ..Expect::default() }
);

#[test]
fn a_file_of_pruned_ranks_has_those() {
    let host = peft_conformance::Host::new(&Default::default());
    let base = host.model.base();
    let path = |layer: usize| format!("bert.encoder.layer.{layer}.attention.self.query");
    let config: AdaloraConfig = serde_json::from_value(json!({
        "init_r": 3,
        "target_modules": ["query"],
        "rank_pattern": {
            (format!("{}.lora_E", path(0))): [true, false, true],
            (format!("{}.lora_E", path(1))): [false, false, false],
        },
    }))
    .expect("it can be read");
    let device = burn::tensor::Device::default();
    let adalora = config.init(&InitContext::new(base, &device)).expect("it fits");
    let ranks: Vec<usize> = (0..2)
        .map(|layer| {
            let site = base.sites().find(|site| site.path == path(layer)).expect("a query");
            adalora.layer(site).expect("it is adapted").lora_a.lazy_shape()[1]
        })
        .collect();
    assert_eq!(ranks, [2, 0]);
}
