//! The properties that every method must have.

use custom_method::{KronAConfig, ScaleConfig};
use peft_conformance::{Expect, conformance};

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

// Two layers, queries and values of 24 by 24: one value per input and per output.
conformance!(scale, ScaleConfig::default(), trains(2 * 2 * (24 + 24)));

// A matrix of 4 by 2, and one of 6 by 12.
conformance!(krona, KronAConfig { scale: 2.0, ..KronAConfig::default() }, trains(2 * 2 * (8 + 72)));
