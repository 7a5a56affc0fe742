//! The configuration of SparseAdapter.

use peft_core::{Base, Error, InitContext, MethodCard, MethodConfig, Result, Site, Size};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::prune::prune;
use crate::{Bottleneck, BottleneckConfig, InitWeights};

/// What decides which weights are left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pruning {
    /// Chance, over all projections.
    Random,
    /// The size of a weight at its start.
    Magnitude,
    /// Chance, with more weights in narrow projections (Erdős–Rényi; Mocanu et al. 2018): a share in
    /// proportion to `(d_in + d_out) / (d_in d_out)`.
    Er,
    /// How much the loss depends on a weight, `|g w|` (Lee et al. 2019, arXiv 1810.02340).
    #[default]
    Snip,
    /// How much the norm of the gradient does, `w (H g)` (Wang et al. 2020, arXiv 2002.07376).
    Grasp,
}

impl Pruning {
    /// Whether it looks at batches.
    pub(super) fn looks_at_data(self) -> bool {
        matches!(self, Self::Snip | Self::Grasp)
    }

    /// Whether it looks at the weights' own values.
    fn looks_at_weights(self) -> bool {
        self.looks_at_data() || self == Self::Magnitude
    }

    fn name(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// Configuration of a [`Bottleneck`] of which few weights are trained, and the others are zero
/// (SparseAdapter; He et al. 2022, arXiv 2210.04284).
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `sparsity` | 0.8 | the share of the projections' weights that are pruned |
/// | `pruning` (`pruner`) | `snip` | what decides which, see [`Pruning`] |
/// | `calibration_batches` | 8 | how many batches `snip` and `grasp` look at |
/// | those of [`BottleneckConfig`] | | the adapters, wherever they are; no `phm_layer`, no experts |
///
/// Biases, norms and an invertible adapter are not pruned. The scope is all projections together, as in the
/// reference; `er` has a share of its own for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SparseAdapterConfig {
    /// The adapters before pruning.
    #[serde(flatten)]
    pub adapter: BottleneckConfig,
    /// The share of weights that are pruned.
    pub sparsity: f64,
    /// What decides which.
    pub pruning: Pruning,
    /// How many batches it looks at.
    pub calibration_batches: usize,
}

impl Default for SparseAdapterConfig {
    fn default() -> Self {
        Self {
            adapter: BottleneckConfig::default(),
            sparsity: 0.8,
            pruning: Pruning::Snip,
            calibration_batches: 8,
        }
    }
}

/// Names of sparse adapters, a line about each, and the fields in which it differs from the defaults.
///
/// ```
/// use peft_adapter::{SparseAdapterConfig, sparse_presets};
/// let (_, _, fields) = sparse_presets().remove(0);
/// // Four times as wide, and a quarter of it: as many weights as a factor of 16 has.
/// let config: SparseAdapterConfig = serde_json::from_value(fields)?;
/// assert_eq!(config.sparsity, 1.0 - 1.0 / 4.0);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn sparse_presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![(
        "large-sparse",
        "sparse-adapter, four times as wide, with as many weights as pfeiffer (He et al. 2022)",
        json!({ "reduction_factor": 4, "sparsity": 0.75 }),
    )]
}

impl SparseAdapterConfig {
    /// How many of so many weights are left: at least one.
    pub fn survivors(&self, weights: usize) -> usize {
        let left = ((1.0 - self.sparsity) * weights as f64).round() as usize;
        left.clamp(1.min(weights), weights)
    }

    /// The shapes of the projections, down and up, in the order of the model.
    pub(super) fn shapes(&self, base: &Base) -> Result<Vec<[usize; 2]>> {
        let of = |site: &Site| {
            let (d, m) = (site.d_out(), self.adapter.bottleneck_at(site)?);
            Ok([[d, m], [m, d]])
        };
        let sites = self.adapter.adapted_sites(base)?;
        let shapes: Result<Vec<_>> = sites.into_iter().map(|site| of(site)).collect();
        Ok(shapes?.concat())
    }
}

impl MethodConfig for SparseAdapterConfig {
    const NAME: &'static str = "sparse-adapter";
    const PEFT_TYPE: &'static str = "SPARSE_ADAPTER";
    const ABOUT: &'static str = "adapters pruned before training (He et al. 2022)";
    // The dense adapters', as in the paper: the weights that are left are as large.
    const LEARNING_RATE: f64 = BottleneckConfig::LEARNING_RATE;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("pruner", "pruning"),
        ("bottleneck", "bottleneck_size"),
        ("inverse", "inv_adapter_inverse"),
    ];
    const CARD: MethodCard = MethodCard {
        trainable: "L (2 (1 - sparsity) d r + d + r)",
        sites: "feed-forward sublayers",
        formats: "",
        ..BottleneckConfig::CARD
    };
    type Method = Bottleneck;

    fn card(&self) -> MethodCard {
        MethodCard { functions: MethodConfig::card(&self.adapter).functions, ..Self::CARD }
    }

    fn learning_rate(&self) -> f64 {
        MethodConfig::learning_rate(&self.adapter)
    }

    fn validate(&self) -> Result<()> {
        MethodConfig::validate(&self.adapter)?;
        if !(0.0..1.0).contains(&self.sparsity) {
            let expected = "must be at least 0, below 1";
            return Err(Error::config("sparsity", self.sparsity, expected));
        }
        if self.calibration_batches == 0 {
            return Err(Error::config("calibration_batches", 0, "must be at least 1"));
        }
        if self.adapter.phm_layer {
            let expected = "its weights are sums of products, of which none can be left out";
            return Err(Error::config("phm_layer", true, expected));
        }
        if self.adapter.num_experts != 1 {
            let expected = "must be 1: experts are not pruned";
            return Err(Error::config("num_experts", self.adapter.num_experts, expected));
        }
        if self.adapter.init_weights == InitWeights::MamAdapter && self.pruning.looks_at_weights() {
            let expected = "starts with projections up of zeros, between which there is nothing to choose: \
                            set init_weights to \"bert\" or \"houlsby\", or pruning to \"random\" or \"er\"";
            let (field, value) = ("pruning", self.pruning.name());
            return Err(Error::config(
                field,
                value,
                format!("init_weights \"mam_adapter\" {expected}"),
            ));
        }
        Ok(())
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        MethodConfig::unmatched(&self.adapter, base)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        // The dense adapters are there at the start; a file has a value and a place of each that is left.
        let dense = MethodConfig::sizes(&self.adapter, base)?;
        let weights = super::num_weights(&self.shapes(base)?);
        let left = Size::new("sparsity", self.sparsity, 2.0 * self.survivors(weights) as f64);
        Ok(dense.into_iter().map(Size::not_in_file).chain([left]).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Bottleneck> {
        self.validate()?;
        prune(self, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let refused = |fields: Value| {
            let config: SparseAdapterConfig =
                serde_json::from_value(fields).expect("it can be read");
            config.validate().expect_err("it makes no sense").to_string()
        };
        assert_eq!(refused(json!({ "sparsity": 1 })), "sparsity = 1: must be at least 0, below 1");
        assert_eq!(
            refused(json!({ "calibration_batches": 0 })),
            "calibration_batches = 0: must be at least 1"
        );
        let of_zeros = refused(json!({ "init_weights": "mam_adapter" }));
        assert!(of_zeros.starts_with("pruning = \"snip\": init_weights \"mam_adapter\" starts"));
        assert!(refused(json!({ "phm_layer": true })).starts_with("phm_layer = true: "));
        assert!(refused(json!({ "num_experts": 2 })).starts_with("num_experts = 2: must be 1"));
        assert!(refused(json!({ "dropout": 1 })).starts_with("dropout = 1: "));
    }
}
