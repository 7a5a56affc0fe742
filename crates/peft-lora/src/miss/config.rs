//! The configuration of MiSS, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Miss;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};
use crate::flag_or_name::flag_or_name;

flag_or_name! {
    /// Which form the block has, and how it starts; HF PEFT's `init_weights`.
    MissInit {
        /// `true`: `D` of shape `[r, d_out]`, at zero.
        true => Zero,
        /// `false`: the same at random, which is not the base; for tests.
        false => Random,
        /// `"bat"`: a block for each group of outputs, multiplied with the weight too; at zero.
        "bat" => Bat,
        /// `"mini"`: `D` repeats `mini_r` columns; at zero.
        "mini" => Mini,
    }
}

/// Configuration of [`Miss`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 64 | the number of classes of inputs, and the rank; it need not divide the inputs |
/// | `miss_dropout` (`dropout`) | 0 | dropout on the input of the sums, in training; not with `"bat"` |
/// | `mini_r` | 1 | with `"mini"`: columns of the block, which are repeated; it divides the outputs |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `init_weights` (`init`) | true | see [`MissInit`] |
/// | `bias` | `none` | `none`, `all`, `MiSS_only` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissConfig {
    /// The number of classes of inputs.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Dropout on the input of the sums.
    #[serde(rename = "miss_dropout")]
    pub dropout: f64,
    /// Columns that are repeated.
    pub mini_r: usize,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// The form of the block.
    #[serde(rename = "init_weights")]
    pub init: MissInit,
    /// Which biases are trained.
    pub bias: LoraBias,
}

impl Default for MissConfig {
    fn default() -> Self {
        Self {
            rank: 64,
            dropout: 0.0,
            mini_r: 1,
            targets: Targets::default(),
            init: MissInit::Zero,
            bias: LoraBias::None,
        }
    }
}

impl MissConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }
}

impl MethodConfig for MissConfig {
    const NAME: &'static str = "miss";
    const PEFT_TYPE: &'static str = "MISS";
    const ABOUT: &'static str = "one block for all groups of inputs (Kang and Yin 2024)";
    // A sum of d_in / r inputs meets each value, which LoRA's random A averages out.
    const LEARNING_RATE: f64 = 3e-4;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("dropout", "miss_dropout"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r d_out per matrix; mini: r mini_r",
        merges: "yes; bat: no inverse",
        formats: "peft",
    };
    type Method = Miss;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::dropout("miss_dropout", self.dropout)?;
        if self.mini_r == 0 {
            return Err(Error::config("mini_r", self.mini_r, "must be at least 1"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| match self.init {
            MissInit::Mini => Size::new("r", self.rank, self.rank as f64 * self.mini_r as f64),
            _ => Size::new("r", self.rank, self.rank as f64 * site.d_out() as f64),
        };
        Ok(self.sites(base)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Miss> {
        self.validate()?;
        Miss::new(self, context)
    }
}
