//! The subcommands, a file each.

pub mod check;
pub mod compose;
pub mod convert;
pub mod counts;
pub mod devices;
pub mod estimate;
pub mod eval;
pub mod fetch;
pub mod forward;
pub mod generate;
pub mod inspect;
pub mod merge;
pub mod methods;
pub mod observe;
pub mod predict;
pub mod subspace;
pub mod train;
pub mod unmerge;
