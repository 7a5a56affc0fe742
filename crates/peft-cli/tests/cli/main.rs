//! The command, run as a user runs it.

mod bad_input;
mod life;
mod resume;
mod workbench;
