//! The crate's promises, by subject.

mod boxed;
mod config;
mod exchange;
mod files;
mod modules_to_save;
mod registry;
mod stack;
mod support;
mod targets;
