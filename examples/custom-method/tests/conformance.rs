//! The properties that every method must have.

use custom_method::ScaleConfig;
use peft_conformance::{Expect, conformance};

// Two layers, queries and values of 24 by 24, one value per input and per output.
conformance!(
    scale,
    ScaleConfig::default(),
    Expect { trainable: Some(2 * 2 * (24 + 24)), ..Expect::default() }
);
