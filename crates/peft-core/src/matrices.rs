//! The parts of a projection that is query, key and value in one.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Role, Site};

/// A projection of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionMatrix {
    /// The query's.
    Q,
    /// The key's.
    K,
    /// The value's.
    V,
}

impl AttentionMatrix {
    /// All of them, in the order in which they lie side by side.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];

    /// The role of a layer that is this projection alone.
    pub fn role(self) -> Role {
        match self {
            Self::Q => Role::Query,
            Self::K => Role::Key,
            Self::V => Role::Value,
        }
    }

    /// `q`, `k` or `v`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
        }
    }
}

/// The parts of projections that are query, key and value in one which a method adapts each on its
/// own: `attn_matrices` of adapter-hub/adapters. Where there is none, it adapts such a projection as
/// a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttentionMatrices(BTreeSet<AttentionMatrix>);

impl AttentionMatrices {
    /// Whether such a projection is adapted as a whole.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, in the order of the projection.
    pub fn iter(&self) -> impl Iterator<Item = AttentionMatrix> {
        self.0.iter().copied()
    }

    /// The columns of each part in the output of a site; none where it is adapted as a whole.
    pub fn columns(&self, site: &Site) -> Vec<Range<usize>> {
        let width = site.d_out() / 3;
        let of = |part: AttentionMatrix| part as usize * width..(part as usize + 1) * width;
        self.iter().filter(|_| site.role == Role::QueryKeyValue).map(of).collect()
    }

    /// What is wrong where parts are named and none of `sites` has any.
    pub fn unmatched(&self, sites: &[&Site]) -> Option<Error> {
        let fused = sites.iter().any(|site| site.role == Role::QueryKeyValue);
        (!self.is_empty() && !fused).then(|| {
            let expected = "no target is query, key and value in one; name the projections in \
                            target_modules";
            let names: Vec<&str> = self.iter().map(AttentionMatrix::name).collect();
            Error::config("attn_matrices", format!("{names:?}"), expected)
        })
    }
}

impl FromIterator<AttentionMatrix> for AttentionMatrices {
    fn from_iter<I: IntoIterator<Item = AttentionMatrix>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}
