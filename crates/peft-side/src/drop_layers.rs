//! Which layers of a stack have no side layer.

use peft_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which layers of each stack have no side layer: how many, or which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DropLayers {
    /// So many, evenly: of 12 layers 3 are the layers 0, 4 and 8, as in the reference's scripts.
    Count(usize),
    /// These, counted from 0 in each stack.
    Layers(Vec<usize>),
}

impl Default for DropLayers {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl DropLayers {
    /// Which of so many layers have a side layer.
    ///
    /// # Errors
    /// If none has, or there is no such layer.
    pub(crate) fn kept(&self, layers: usize) -> Result<Vec<bool>> {
        let dropped: Vec<usize> = match self {
            Self::Count(count) => {
                if *count >= layers {
                    let expected =
                        format!("must be less than {layers}, as many layers as there are");
                    return Err(Error::config("drop_layers", count, expected));
                }
                (0..*count).map(|number| number * layers / count).collect()
            }
            Self::Layers(named) => {
                if let Some(beyond) = named.iter().find(|layer| **layer >= layers) {
                    let expected =
                        format!("must name layers from 0 to {}", layers.saturating_sub(1));
                    return Err(Error::config("drop_layers", beyond, expected));
                }
                named.clone()
            }
        };
        let kept: Vec<bool> = (0..layers).map(|layer| !dropped.contains(&layer)).collect();
        match kept.contains(&true) {
            true => Ok(kept),
            false => Err(Error::config(
                "drop_layers",
                "(all layers)",
                "must leave a side layer at least",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(drop: DropLayers, layers: usize) -> Vec<usize> {
        let kept = drop.kept(layers).expect("some are left");
        (0..layers).filter(|layer| !kept[*layer]).collect()
    }

    #[test]
    fn a_count_is_spread_evenly_and_a_list_is_taken_as_it_is() {
        assert_eq!(dropped(DropLayers::Count(3), 12), [0, 4, 8]);
        assert_eq!(dropped(DropLayers::Count(0), 4), [0; 0]);
        assert_eq!(dropped(DropLayers::Count(5), 7), [0, 1, 2, 4, 5]);
        assert_eq!(dropped(DropLayers::Layers(vec![2, 0]), 3), [0, 2]);
    }

    #[test]
    fn a_side_network_without_layers_is_refused() {
        for drop in
            [DropLayers::Count(2), DropLayers::Layers(vec![1, 0]), DropLayers::Layers(vec![2])]
        {
            let error = drop.kept(2).expect_err("there are two").to_string();
            assert!(error.contains("drop_layers"), "{error}");
        }
    }
}
