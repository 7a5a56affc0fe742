//! Cases recorded from the reference libraries: a directory with `bases/`, `peft/`, `adapters/`
//! and `curves/`, each case a folder with a `meta.json`; and adapters for those
//! libraries to load.

pub mod adapters;
pub mod case;
pub mod curve;
pub mod fixtures;
pub mod known;
pub mod logits;
pub mod measured;
pub mod suite;
