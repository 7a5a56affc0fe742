//! Cases recorded from the reference libraries: a directory with `bases/`, `peft/`, `adapters/`
//! and `curves/`, each case a folder with a `meta.json`.

pub mod case;
pub mod curve;
pub mod logits;
