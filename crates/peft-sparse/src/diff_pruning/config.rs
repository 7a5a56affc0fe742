//! The configuration of diff pruning.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Progress, Result,
    Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::{DiffPruning, HardConcrete};
use crate::selection::{Selection, check_ratio, unmatched};

/// Configuration of [`DiffPruning`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `keep_ratio` | 0.005 | the share `k` of all entries of the targets that has a change in the end |
/// | `sparsity_pen` | 1.25e-7 | `c`, the weight in the loss of each entry that is expected to have one |
/// | `alpha_init` | 5 | `α` at the start: open |
/// | `concrete_lower`, `concrete_upper` | -1.5, 1.5 | `l` and `r`, what gates are stretched to |
/// | `structured` | false | a gate for each weight, too |
/// | `gate_share` | 0.5 | the share of the run's steps with gates; then the `k` entries are trained on alone |
/// | `alpha_lr_ratio` | 1000 | how much faster `α` learns |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every linear layer but the head | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffPruningConfig {
    /// The share of entries that has a change in the end.
    pub keep_ratio: f64,
    /// The weight of each open gate in the loss.
    pub sparsity_pen: f64,
    /// `α` at the start.
    pub alpha_init: f64,
    /// `l`.
    pub concrete_lower: f64,
    /// `r`.
    pub concrete_upper: f64,
    /// Whether each weight has a gate, too.
    pub structured: bool,
    /// The share of the steps with gates.
    pub gate_share: f64,
    /// How much faster `α` learns.
    pub alpha_lr_ratio: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for DiffPruningConfig {
    fn default() -> Self {
        Self {
            keep_ratio: 0.005,
            sparsity_pen: 1.25e-7,
            alpha_init: 5.0,
            concrete_lower: -1.5,
            concrete_upper: 1.5,
            structured: false,
            gate_share: 0.5,
            alpha_lr_ratio: 1000.0,
            targets: Targets::default(),
        }
    }
}

impl DiffPruningConfig {
    pub(super) fn gates(&self) -> HardConcrete {
        HardConcrete { lower: self.concrete_lower, upper: self.concrete_upper }
    }

    /// Whether the entries are chosen after this step. Not after the last one: nothing would be trained
    /// after it, and the end chooses.
    pub(super) fn chooses(&self, progress: Progress) -> bool {
        let end = ((progress.total as f64 * self.gate_share).round() as usize).max(1);
        progress.step == end && end < progress.total
    }
}

impl MethodConfig for DiffPruningConfig {
    const NAME: &'static str = "diff-pruning";
    const PEFT_TYPE: &'static str = "DIFF_PRUNING";
    const ABOUT: &'static str = "a change that gates make sparse (Guo et al. 2021)";
    // Dense weights: as for layer groups. The authors' gates learn at 0.1, which `alpha_lr_ratio` makes of
    // it.
    const LEARNING_RATE: f64 = 1e-4;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers",
        trainable: "two values for each entry; in the end keep_ratio of the entries count",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = DiffPruning;

    fn validate(&self) -> Result<()> {
        check_ratio("keep_ratio", self.keep_ratio)?;
        if !(self.sparsity_pen.is_finite() && self.sparsity_pen >= 0.0) {
            return Err(Error::config("sparsity_pen", self.sparsity_pen, "must be at least 0"));
        }
        if !self.alpha_init.is_finite() {
            return Err(Error::config("alpha_init", self.alpha_init, "must be a number"));
        }
        if !(self.concrete_lower.is_finite() && self.concrete_lower < 0.0) {
            return Err(Error::config("concrete_lower", self.concrete_lower, "must be below 0"));
        }
        if !(self.concrete_upper.is_finite() && self.concrete_upper > 1.0) {
            return Err(Error::config("concrete_upper", self.concrete_upper, "must be above 1"));
        }
        if !(self.gate_share > 0.0 && self.gate_share <= 1.0) {
            return Err(Error::config("gate_share", self.gate_share, "must be above 0, at most 1"));
        }
        if !(self.alpha_lr_ratio.is_finite() && self.alpha_lr_ratio > 0.0) {
            return Err(Error::config("alpha_lr_ratio", self.alpha_lr_ratio, "must be above 0"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        unmatched(&self.targets, base)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        Selection::sizes(&self.targets, self.keep_ratio, base)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<DiffPruning> {
        self.validate()?;
        DiffPruning::new(self, context)
    }
}
