//! The command, run as a user runs it.

mod bad_input;
mod base;
mod compose;
mod counts;
mod generate;
mod heads;
mod language;
mod letters;
mod life;
mod merged;
mod methods;
mod packed;
mod pipes;
mod questions;
mod resume;
mod subspace;
mod tags;
mod terminal;
mod workbench;
