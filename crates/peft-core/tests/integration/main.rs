//! The crate's promises, by subject.

mod boxed;
mod config;
mod edits;
mod exchange;
mod files;
mod modules_to_save;
mod registry;
mod routed;
mod stack;
mod support;
mod targets;
