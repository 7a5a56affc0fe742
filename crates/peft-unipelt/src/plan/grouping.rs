//! How layers are divided among groups.

use peft_core::{Base, Role};
use serde::{Deserialize, Serialize};

/// How many layers each group of a stack gets, where groups do not name their layers: the design space
/// of S4 (Chen et al. 2023, arXiv 2301.01821, §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// As many each.
    Uniform,
    /// More and more.
    Increasing,
    /// Fewer and fewer.
    Decreasing,
    /// More in the middle: of 12 layers in four groups 2, 4, 4 and 2. It is the best of the paper.
    #[default]
    Spindle,
    /// Fewer in the middle.
    Bottleneck,
}

impl Grouping {
    /// The share of a group.
    fn weight(self, group: usize, groups: usize) -> usize {
        let from_the_end = groups - 1 - group;
        let from_an_end = group.min(from_the_end);
        match self {
            Self::Uniform => 1,
            Self::Increasing => group + 1,
            Self::Decreasing => from_the_end + 1,
            Self::Spindle => from_an_end + 1,
            Self::Bottleneck => (groups - 1) / 2 - from_an_end + 1,
        }
    }

    /// The group of each of `layers` layers, in order. Bounds are rounded, halves up.
    fn divide(self, layers: usize, groups: usize) -> Vec<usize> {
        let weights: Vec<usize> = (0..groups).map(|group| self.weight(group, groups)).collect();
        let sum: usize = weights.iter().sum();
        let bound = |group: usize| {
            let below: usize = weights[..=group].iter().sum();
            (2 * layers * below + sum) / (2 * sum)
        };
        let of = |layer: usize| (0..groups).find(|group| layer < bound(*group));
        (0..layers).map(|layer| of(layer).unwrap_or(groups - 1)).collect()
    }

    /// The group of each layer of a base, by [`Site::layer`](peft_core::Site::layer): an encoder and a
    /// decoder are divided each by itself.
    pub(crate) fn of_layers(self, base: &Base, groups: usize) -> Vec<usize> {
        let layers = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let decoder = base.sites().skip_while(|site| site.role != Role::DecoderEmbeddings);
        let first = decoder.filter_map(|site| site.layer).min().unwrap_or(0);
        let mut of_layer = self.divide(first, groups);
        of_layer.extend(self.divide(layers - first, groups));
        of_layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(grouping: Grouping, layers: usize, groups: usize) -> Vec<usize> {
        let of_layer = grouping.divide(layers, groups);
        assert!(of_layer.is_sorted());
        (0..groups).map(|group| of_layer.iter().filter(|own| **own == group).count()).collect()
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        assert_eq!(counts(Grouping::Spindle, 12, 4), [2, 4, 4, 2]);
        assert_eq!(counts(Grouping::Spindle, 24, 4), [4, 8, 8, 4]);
        assert_eq!(counts(Grouping::Spindle, 6, 4), [1, 2, 2, 1]);
        assert_eq!(counts(Grouping::Spindle, 4, 4), [1, 1, 1, 1]);
        assert_eq!(counts(Grouping::Bottleneck, 12, 4), [4, 2, 2, 4]);
        assert_eq!(counts(Grouping::Uniform, 12, 4), [3, 3, 3, 3]);
        assert_eq!(counts(Grouping::Increasing, 10, 4), [1, 2, 3, 4]);
        assert_eq!(counts(Grouping::Decreasing, 10, 4), [4, 3, 2, 1]);
        assert_eq!(counts(Grouping::Uniform, 5, 1), [5]);
    }
}
