//! Subnetworks by the magnitude of the frozen weights.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Size, Targets,
};
use serde::{Deserialize, Serialize};

use crate::SelectedEntries;
use crate::selection::{Selection, check_ratio, in_order, unmatched};

/// Configuration of a subnetwork by magnitude, which is a [`SelectedEntries`]: `S` has values at the `k`
/// entries, over all weights together, at which `|W|` is largest, or smallest. It is the baseline
/// without data of papers about masks (Ansell et al. 2022, arXiv 2110.07560).
///
/// The largest are those that pruning by magnitude keeps (Han et al. 2015, arXiv 1506.02626), and the
/// default; the smallest are those that the model misses least, which leaves more of it as it is.
/// [`SuperTuningConfig`](crate::SuperTuningConfig) takes a share of each weight by itself.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `keep_ratio` | 0.005 | the share `k` of all entries of the targets that is trained |
/// | `select_top` | true | the largest; false: the smallest |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every linear layer but the head | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MagnitudeMaskConfig {
    /// The share of entries that is trained.
    pub keep_ratio: f64,
    /// Whether they are the largest.
    pub select_top: bool,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for MagnitudeMaskConfig {
    fn default() -> Self {
        Self { keep_ratio: 0.005, select_top: true, targets: Targets::default() }
    }
}

impl MethodConfig for MagnitudeMaskConfig {
    const NAME: &'static str = "magnitude-mask";
    const PEFT_TYPE: &'static str = "MAGNITUDE_MASK";
    const ABOUT: &'static str = "the largest entries of all weights together, or the smallest";
    // As SHiRA's.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers",
        trainable: "keep_ratio of all entries",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = SelectedEntries;

    fn validate(&self) -> Result<()> {
        check_ratio("keep_ratio", self.keep_ratio)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        unmatched(&self.targets, base)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        Selection::sizes(&self.targets, self.keep_ratio, base)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<SelectedEntries> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let selection = Selection::new(&self.targets, self.keep_ratio, base)?;
        let sign = if self.select_top { 1.0 } else { -1.0 };
        let score = |weight: f32| sign * weight.abs();
        let places = match context.is_read() {
            true => selection.spread(),
            false => {
                let weights =
                    selection.sites.iter().map(|site| in_order(base.weight(site).dense()));
                let scores = weights.map(|weight| weight.into_iter().map(score).collect());
                selection.highest(&scores.collect::<Vec<Vec<f32>>>())
            }
        };
        Ok(SelectedEntries::zeros(&selection.sites, &places, base, device))
    }
}
