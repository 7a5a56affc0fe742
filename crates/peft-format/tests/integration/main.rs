//! The crate's promises, by subject.

mod config;
mod files;
mod modules_to_save;
mod pytorch;
mod refusals;
mod registry;
/// The bases that the contract's own tests use.
#[allow(dead_code)]
#[path = "../../../peft-core/tests/integration/support.rs"]
mod support;
