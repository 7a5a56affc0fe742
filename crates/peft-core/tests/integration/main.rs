//! The crate's promises, by subject.

mod boxed;
mod calibration;
mod edits;
mod exchange;
mod gates;
mod inserts;
mod keys;
mod kroneckers;
mod norms;
mod refusals;
mod rotations;
mod routed;
mod rows;
mod stack;
mod support;
mod tables;
mod targets;
