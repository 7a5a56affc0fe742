//! The configuration of GraLoRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Gralora;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Gralora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 32 | rank of a row of blocks; `gralora_k` divides it |
/// | `alpha` | 64 | scale: `alpha / (r + hybrid_r)` |
/// | `gralora_k` (`k`) | 2 | blocks along each side of a weight; it divides both |
/// | `hybrid_r` | 0 | rank of a change of the whole weight beside the blocks |
/// | `gralora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `gralora_only` |
/// | `init_weights` (`init`) | true | `B` starts at zero; false: at random, which is not the base; for tests |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GraloraConfig {
    /// Rank of a row of blocks.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Blocks along each side.
    #[serde(rename = "gralora_k")]
    pub blocks: usize,
    /// Rank of a change of the whole weight.
    pub hybrid_r: usize,
    /// Dropout on the input of the factors.
    #[serde(rename = "gralora_dropout")]
    pub dropout: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
}

impl Default for GraloraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            alpha: 64.0,
            blocks: 2,
            hybrid_r: 0,
            dropout: 0.0,
            targets: Targets::default(),
            bias: LoraBias::None,
            init: true,
            fan_in_fan_out: false,
        }
    }
}

impl GraloraConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }

    /// The scale: `alpha / (r + hybrid_r)`.
    pub fn scaling(&self) -> f64 {
        self.alpha / (self.rank + self.hybrid_r) as f64
    }
}

impl MethodConfig for GraloraConfig {
    const NAME: &'static str = "gralora";
    const PEFT_TYPE: &'static str = "GRALORA";
    const ABOUT: &'static str = "low ranks of the blocks of a weight (Jung et al. 2025)";
    // LoRA's: each block is one.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("k", "gralora_k"),
        ("dropout", "gralora_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "(r + hybrid_r) (d_in + d_out) per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Gralora;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::scales("alpha", self.alpha, ("", &PatternMap::default()))?;
        if self.blocks == 0 || !self.rank.is_multiple_of(self.blocks) {
            let expected = format!("must divide r, which is {}", self.rank);
            return Err(Error::config("gralora_k", self.blocks, expected));
        }
        checks::dropout("gralora_dropout", self.dropout)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let width = (site.d_in() + site.d_out()) as f64;
            let general = Size::new("hybrid_r", self.hybrid_r, self.hybrid_r as f64 * width);
            [Size::new("r", self.rank, self.rank as f64 * width), general]
        };
        Ok(self.sites(base)?.into_iter().flat_map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Gralora> {
        self.validate()?;
        Gralora::new(self, context)
    }
}
