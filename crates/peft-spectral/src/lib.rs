#![doc = include_str!("../README.md")]

mod c3a;
mod fourier;

pub use c3a::{C3a, C3aConfig, C3aInit};
pub use fourier::{FourierFt, FourierFtConfig, FourierFtLayer};

use peft_core::Role;

/// The linear layers that are adapted unless told otherwise: queries and values, or the projection
/// that is both and keys.
const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value, Role::QueryKeyValue];
