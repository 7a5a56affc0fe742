//! Products of f32 matrices, and of those rounded to bf16.

mod pairs;
mod panels;
mod product;
mod tile;

pub(crate) use panels::{Panels, Source};
pub(crate) use product::{Products, Start, Term, transposed_sum};
