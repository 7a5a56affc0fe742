//! Ladder side-tuning has the properties that every method must have.

use peft_conformance::{Expect, HostKind, conformance};
use peft_side::{DropLayers, LadderSideConfig, SideInit};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

/// The side network has the last word, and starts at random there.
fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), identity_at_init: false, ..Expect::default() }
}

/// Values of a side layer of width `d` over one of the BERT host, its inner width `inner`, with its rung.
fn layer(d: usize, inner: usize) -> usize {
    let attention = 4 * (d * d + d) + 2 * d;
    let network = d * inner + inner + inner * d + d + 2 * d;
    attention + network + HIDDEN * d + d + 1
}

/// Into the network, and out of it.
fn ends(d: usize) -> usize {
    HIDDEN * d + d + d * HIDDEN + HIDDEN
}

fn lst() -> LadderSideConfig {
    LadderSideConfig {
        reduction_factor: 4,
        init: SideInit::Magnitude,
        ..LadderSideConfig::default()
    }
}

conformance!(ladder, lst(), trains(LAYERS * layer(HIDDEN / 4, INNER / 4) + ends(HIDDEN / 4)));

// Without data the importance is that of magnitudes; three heads of 8 become three of 2, though 24 / 5
// is rounded up to 5.
conformance!(
    ladder_of_odd_widths,
    LadderSideConfig { reduction_factor: 5, ..LadderSideConfig::default() },
    Expect { identity_at_init: false, ..Expect::default() }
);

conformance!(
    ladder_of_one_layer,
    LadderSideConfig {
        drop_layers: DropLayers::Count(1),
        init: SideInit::Random,
        merge_last: true,
        gate_alpha: 0.05,
        ..lst()
    },
    // Its encoder has one layer.
    Expect {
        unfit: &[HostKind::T5],
        ..trains(layer(HIDDEN / 4, INNER / 4) + ends(HIDDEN / 4) + 1)
    }
);
