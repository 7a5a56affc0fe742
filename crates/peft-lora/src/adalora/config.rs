//! The configuration of AdaLoRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Adalora;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Adalora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `init_r` (`rank`) | 12 | singular values of each layer at the start |
/// | `target_r` | 8 | singular values for each layer at the end, over all of them |
/// | `lora_alpha` (`alpha`) | 8 | scale: `alpha / (init_r + 1e-5)`; not above 0: `r` in its place |
/// | `lora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `tinit` | 0 | steps before the budget falls |
/// | `tfinal` | 0 | steps after it has fallen |
/// | `deltaT` | 1 | steps from one allocation to the next |
/// | `beta1`, `beta2` | 0.85 | of the running means of sensitivity and of its uncertainty |
/// | `orth_reg_weight` | 0.5 | weight of the penalty in the loss |
/// | `total_step` | none | the length of the run for the budget; none: that of the run. HF PEFT's file must have a number: where there is none, the least that it takes is written |
/// | `rank_pattern` | none | of a file of HF PEFT's: which singular values of each layer it holds |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `lora_only` |
/// | `init_lora_weights` (`init`) | true | `e` starts at zero; false: all is random, which is not the base; for tests |
/// | `r` | 8 | has no effect, as in HF PEFT |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaloraConfig {
    /// Singular values of each layer at the start.
    pub init_r: usize,
    /// Singular values for each layer at the end.
    pub target_r: usize,
    /// Numerator of the scale.
    #[serde(rename = "lora_alpha", serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "lora_dropout")]
    pub dropout: f64,
    /// Steps before the budget falls.
    pub tinit: usize,
    /// Steps after it has fallen.
    pub tfinal: usize,
    /// Steps from one allocation to the next.
    #[serde(rename = "deltaT")]
    pub delta_t: usize,
    /// Of the running mean of sensitivity.
    pub beta1: f64,
    /// Of the running mean of its uncertainty.
    pub beta2: f64,
    /// Weight of the penalty in the loss.
    pub orth_reg_weight: f64,
    /// The length of the run.
    pub total_step: Option<usize>,
    /// Which singular values a file holds, by `PATH.lora_E`.
    pub rank_pattern: Option<PatternMap<Vec<bool>>>,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Whether the start is the base.
    #[serde(rename = "init_lora_weights")]
    pub init: bool,
    /// Without effect.
    #[serde(rename = "r")]
    pub unused_r: usize,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
}

impl Default for AdaloraConfig {
    fn default() -> Self {
        Self {
            init_r: 12,
            target_r: 8,
            alpha: 8.0,
            dropout: 0.0,
            tinit: 0,
            tfinal: 0,
            delta_t: 1,
            beta1: 0.85,
            beta2: 0.85,
            orth_reg_weight: 0.5,
            total_step: None,
            rank_pattern: None,
            targets: Targets::default(),
            bias: LoraBias::None,
            init: true,
            unused_r: 8,
            fan_in_fan_out: false,
        }
    }
}

impl AdaloraConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }

    /// The number of singular values that a layer has, or that a file holds of it.
    pub fn rank_at(&self, site: &Site) -> usize {
        let kept = self.rank_pattern.as_ref().and_then(|pattern| {
            let key = format!("{}.lora_E", site.path);
            pattern.get(&key).or_else(|| pattern.get(&format!("{key}.default")))
        });
        kept.map_or(self.init_r, |kept| kept.iter().filter(|is_kept| **is_kept).count())
    }

    /// The scale of a layer of so many singular values.
    pub fn scaling(&self, rank: usize) -> f64 {
        let numerator = if self.alpha > 0.0 { self.alpha } else { rank as f64 };
        // Of the start's: the reference leaves it as it was when there are fewer.
        numerator / (self.init_r as f64 + 1e-5)
    }
}

impl MethodConfig for AdaloraConfig {
    const NAME: &'static str = "adalora";
    const PEFT_TYPE: &'static str = "ADALORA";
    const ABOUT: &'static str = "low ranks that share a budget over the layers (Zhang et al. 2023)";
    // LoRA's: the paper's, 5e-4 to 2e-3 for DeBERTa-base, lie around it.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "init_r"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("init", "init_lora_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "init_r (d_in + d_out + 1) per matrix; at the end target_r of them count",
        merges: "yes",
        formats: "peft",
    };
    type Method = Adalora;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = checks::for_file(&self.targets, base)?;
        let total_step = Some(self.total_step.unwrap_or(self.tinit + self.tfinal + 1));
        Ok(Self { targets, fan_in_fan_out, total_step, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        if self.init_r == 0 {
            return Err(Error::config("init_r", self.init_r, "the rank must be at least 1"));
        }
        if !self.alpha.is_finite() {
            return Err(Error::config("lora_alpha", self.alpha, "must be a number"));
        }
        checks::dropout("lora_dropout", self.dropout)?;
        if self.delta_t == 0 {
            return Err(Error::config("deltaT", self.delta_t, "must be at least 1"));
        }
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::config(field, beta, "must be above 0 and below 1"));
            }
        }
        if !(self.orth_reg_weight.is_finite() && self.orth_reg_weight >= 0.0) {
            let expected = "must be at least 0";
            return Err(Error::config("orth_reg_weight", self.orth_reg_weight, expected));
        }
        if let Some(total) = self.total_step
            && total <= self.tinit.saturating_add(self.tfinal)
        {
            let expected = format!(
                "must be above tinit + tfinal, {}, so that there are steps in which the budget falls",
                self.tinit.saturating_add(self.tfinal)
            );
            return Err(Error::config("total_step", total, expected));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let rank = self.rank_at(site);
            let field = if rank == self.init_r { "init_r" } else { "rank_pattern" };
            Size::new(field, rank, rank as f64 * (site.d_in() + site.d_out() + 1) as f64)
        };
        Ok(self.sites(base)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Adalora> {
        self.validate()?;
        Adalora::new(self, context)
    }
}
