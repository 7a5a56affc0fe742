//! The configuration of ladder side-tuning.

use burn::tensor::Tensor;
use peft_core::{
    ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Site,
    fisher_diagonal,
};
use serde::{Deserialize, Serialize};

use crate::prune::{Pruning, linears};
use crate::stacks::Stack;
use crate::{DropLayers, LadderSide};

/// What the side layers start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideInit {
    /// The frozen layers, of which those inputs and outputs are kept whose entries have the largest
    /// Fisher information: the mean over examples of a run's data of the squared gradient. Where there is
    /// no data, as `magnitude`.
    #[default]
    Fisher,
    /// The same by the absolute values of the entries.
    Magnitude,
    /// Random weights: within `1 / sqrt(d_in)`. Norms are still those of the frozen layers.
    Random,
}

/// Configuration of [`LadderSide`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `reduction_factor` (`r`) | 8 | by how much the side network is narrower; widths are rounded up |
/// | `gate_alpha` | 0 | `α` where it starts: with `μ = σ(α / T)`, a half |
/// | `gate_T` (`gate_temperature`) | 0.1 | `T` |
/// | `drop_layers` | 0 | layers without a side layer: how many, evenly, or a list, counted from 0 in each stack |
/// | `add_bias_sampling` | true | projections down and up have biases |
/// | `merge_last` | false | the head reads `μ · up + (1 - μ) · h` with one more gate; otherwise the side network alone |
/// | `init_side_weights` (`init`) | `fisher` | `fisher`, `magnitude`, `random`; see [`SideInit`] |
/// | `num_samples` | 128 | examples that `fisher` looks at, at most |
///
/// Fields are those of the authors' code, where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LadderSideConfig {
    /// By how much the side network is narrower.
    pub reduction_factor: usize,
    /// Where the gates start.
    pub gate_alpha: f64,
    /// The temperature of the gates.
    #[serde(rename = "gate_T")]
    pub gate_temperature: f64,
    /// Which layers have no side layer.
    pub drop_layers: DropLayers,
    /// Whether projections have biases.
    pub add_bias_sampling: bool,
    /// Whether the frozen model's last states are part of what the head reads.
    pub merge_last: bool,
    /// What the side layers start from.
    #[serde(rename = "init_side_weights")]
    pub init: SideInit,
    /// How many examples are looked at.
    pub num_samples: usize,
}

impl Default for LadderSideConfig {
    fn default() -> Self {
        Self {
            reduction_factor: 8,
            gate_alpha: 0.0,
            gate_temperature: 0.1,
            drop_layers: DropLayers::default(),
            add_bias_sampling: true,
            merge_last: false,
            init: SideInit::default(),
            num_samples: 128,
        }
    }
}

impl MethodConfig for LadderSideConfig {
    const NAME: &'static str = "ladder";
    const PEFT_TYPE: &'static str = "LADDER";
    const ABOUT: &'static str =
        "a small network beside the frozen layers, which need no backward pass (Sung et al. 2022)";
    // That of the authors' scripts.
    const LEARNING_RATE: f64 = 3e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("r", "reduction_factor"), ("gate_temperature", "gate_T"), ("init", "init_side_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Function],
        sites: "beside all layers",
        trainable: "about 1 / r² of the layers, and (L + 2) d² / r",
        merges: "no",
        formats: "ours, in the layout of peft",
    };
    type Method = LadderSide;

    fn validate(&self) -> Result<()> {
        let at_least_one =
            [("reduction_factor", self.reduction_factor), ("num_samples", self.num_samples)];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(field, 0, "must be at least 1"));
        }
        if !(self.gate_temperature.is_finite() && self.gate_temperature > 0.0) {
            return Err(Error::config(
                "gate_T",
                self.gate_temperature,
                "must be a positive number",
            ));
        }
        if !self.gate_alpha.is_finite() {
            return Err(Error::config("gate_alpha", self.gate_alpha, "must be a number"));
        }
        Ok(())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<LadderSide> {
        self.validate()?;
        let stacks = Stack::all(context.base)?;
        // Of values that are replaced the shapes are enough.
        let replaced = context.is_read() || context.restored || self.init == SideInit::Random;
        let fisher = match context.calibration {
            Some(calibration) if self.init == SideInit::Fisher && !replaced => {
                let sites: Vec<&Site> = linears(&stacks).collect();
                Some(fisher_diagonal(calibration, context.base, &sites, self.num_samples)?)
            }
            _ => None,
        };
        let importance = |site: &Site| {
            let known = fisher.as_ref().and_then(|fisher| fisher.get(&site.index));
            known.cloned().unwrap_or_else(|| context.base.weight(site).dense())
        };
        let importance = (!replaced).then_some(&importance as &dyn Fn(&Site) -> Tensor<2>);
        let kept = Pruning::new(context.base, &stacks, self.reduction_factor, importance).kept();
        LadderSide::new(self, &stacks, &kept, context)
    }
}
