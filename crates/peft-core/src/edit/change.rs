//! What merging changes, counted.

use crate::Site;

/// How a method changes the values at one site, once merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries of the weight (or gain) that can differ from the base's.
    pub weight: usize,
    /// Entries of the bias that can differ.
    pub bias: usize,
    /// The largest rank that the change of the weight matrix can have. A vector has no rank.
    pub rank: usize,
}

impl Change {
    /// What several methods change together at a site. Upper bounds: two masks may choose different
    /// entries, two low ranks add up.
    pub(crate) fn together(site: &Site, changes: impl Iterator<Item = Self>) -> Self {
        let [d_in, d_out] = site.shape;
        changes.fold(Self::default(), |sum, change| Self {
            weight: (sum.weight + change.weight).min(d_in * d_out),
            bias: (sum.bias + change.bias).min(d_out),
            rank: (sum.rank + change.rank).min(d_in.min(d_out)),
        })
    }
}
