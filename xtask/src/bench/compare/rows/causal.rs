//! To come.

use anyhow::Result;

use crate::bench::compare::case::Case;
use crate::bench::compare::setup::Setup;

/// The cases.
pub const CASES: [(&str, fn(&Setup) -> Result<Case>); 0] = [];
