//! Operations of this crate on the tape: each with a backward pass of its own.

mod operation;
mod threads;

pub(crate) use operation::{
    Array, Operation, Saved, apply, is_fast, is_fast_device, matrix, numbers, output,
};
pub(crate) use threads::{BLOCK, Shared, chunks, filled, grid, summed};
