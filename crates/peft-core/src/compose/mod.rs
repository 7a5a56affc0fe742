//! Methods made of methods.

mod stack;

pub use stack::Stack;
