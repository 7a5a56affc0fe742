//! The crate's promises, by subject.

mod boxed;
mod calibration;
mod config;
mod edits;
mod exchange;
mod files;
mod gates;
mod inserts;
mod keys;
mod modules_to_save;
mod norms;
mod refusals;
mod registry;
mod routed;
mod rows;
mod stack;
mod support;
mod tables;
mod targets;
