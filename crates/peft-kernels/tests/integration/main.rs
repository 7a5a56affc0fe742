//! Packing, and products with what is packed.

mod again;
mod attention;
mod both;
mod cross_entropy;
mod elementwise;
mod linear;
mod norm;
mod normal_float;
mod optimizer;
mod product;
mod segmented;
