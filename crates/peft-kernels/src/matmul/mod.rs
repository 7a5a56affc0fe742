//! Products of f32 matrices.

mod panels;
mod product;
mod tile;

pub(crate) use panels::{Panels, Source};
pub(crate) use product::{Products, Start, Term, transposed_sum};
