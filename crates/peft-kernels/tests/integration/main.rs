//! Packing, and products with what is packed.

mod normal_float;
mod product;
