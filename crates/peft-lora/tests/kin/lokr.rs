use peft_conformance::{Expect, conformance};
use peft_lora::{LokrConfig, LokrInit};

use super::{all_linear, over_all};

fn of_rank(rank: usize) -> LokrConfig {
    LokrConfig { rank, alpha: 3.0, targets: all_linear(), ..LokrConfig::default() }
}

/// A layer that is left as it is in one step may be so in the next, too.
const DROPOUT: Option<&[&str]> = Some(&["rank_dropout"]);

fn trains(trainable: usize) -> Expect {
    Expect { dropout: DROPOUT, ..super::trains(trainable) }
}

/// 24 = 4 · 6 and 40 = 5 · 8.
fn divided(number: usize) -> [usize; 2] {
    if number == 24 { [4, 6] } else { [5, 8] }
}

conformance!(
    lokr,
    of_rank(2),
    trains(over_all(|[d_in, d_out]| {
        let ([m, n], [k, l]) = (divided(d_in), divided(d_out));
        m * k + 2 * (n + l)
    }))
);
conformance!(
    both,
    LokrConfig { decompose_both: true, ..of_rank(1) },
    trains(over_all(|[d_in, d_out]| {
        let ([m, n], [k, l]) = (divided(d_in), divided(d_out));
        m + k + n + l
    }))
);
conformance!(
    full,
    of_rank(16),
    trains(over_all(|[d_in, d_out]| {
        let ([m, n], [k, l]) = (divided(d_in), divided(d_out));
        m * k + n * l
    }))
);
conformance!(
    by_a_factor,
    LokrConfig { decompose_factor: 2, init: LokrInit::Lycoris, ..of_rank(2) },
    trains(over_all(|[d_in, d_out]| 4 + 2 * (d_in + d_out) / 2))
);
conformance!(
    random,
    LokrConfig { init: LokrInit::Random, alpha: 0.5, ..of_rank(2) },
    Expect { identity_at_init: false, dropout: DROPOUT, ..Expect::default() }
);
conformance!(
    scaled_dropout,
    LokrConfig { rank_dropout_scale: true, ..of_rank(2) },
    Expect { dropout: DROPOUT, ..Expect::default() }
);
