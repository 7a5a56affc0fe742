#![doc = include_str!("../README.md")]

mod blocks;
mod boft;
mod hra;
mod oft;
mod road;

pub use boft::{Boft, BoftConfig, BoftLayer};
pub use hra::{Hra, HraConfig};
pub use oft::{Oft, OftConfig};
pub use road::{Road, RoadConfig, RoadLayer, RoadVariant};

use peft_core::{Base, Result, Role, SiteKind, Targets};

/// The linear layers that are adapted unless told otherwise: queries and values, or the projection
/// that is both and keys.
const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value, Role::QueryKeyValue];

/// The targets by name, as HF PEFT finds them in any model, and whether their weights lie as
/// `[d_in, d_out]` in the checkpoint.
fn named(targets: &Targets, base: &Base) -> Result<(Targets, bool)> {
    let sites = targets.resolve(base, DEFAULT_ROLES)?;
    let fan_in_fan_out = sites.iter().any(|site| site.fan_in_fan_out);
    Ok((targets.named(base, &[SiteKind::Linear], DEFAULT_ROLES)?, fan_in_fan_out))
}
