//! The configuration of VeRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Vera;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Vera`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 256 | rank of the shared projections; higher than LoRA's, since a layer trains `r + d_out` values |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `projection_prng_key` | 0 | the seed of the projections, which are those that HF PEFT makes from it on a CPU |
/// | `save_projection` | true | whether the file holds the projections; if not, they are made again from the seed |
/// | `vera_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `d_initial` | 0.1 | where `d` starts |
/// | `bias` | `none` | `none`, `all`, `vera_only` |
/// | `init_weights` (`init`) | true | `b` starts at zero; false: `d` is random and `b` one, which is not the base; for tests |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VeraConfig {
    /// Rank of the projections.
    #[serde(rename = "r")]
    pub rank: usize,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// The seed of the projections.
    pub projection_prng_key: u64,
    /// Whether they are in the file.
    pub save_projection: bool,
    /// Dropout on the input of the factors.
    #[serde(rename = "vera_dropout")]
    pub dropout: f64,
    /// Where `d` starts.
    pub d_initial: f64,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            rank: 256,
            targets: Targets::default(),
            projection_prng_key: 0,
            save_projection: true,
            dropout: 0.0,
            d_initial: 0.1,
            bias: LoraBias::None,
            init: true,
            fan_in_fan_out: false,
        }
    }
}

impl VeraConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }
}

impl MethodConfig for VeraConfig {
    const NAME: &'static str = "vera";
    const PEFT_TYPE: &'static str = "VERA";
    const ABOUT: &'static str = "vectors around shared random projections (Kopiczko et al. 2023)";
    // Of the order of the paper's for its vectors (4e-3 to 2e-2 on GLUE): they start small, between
    // projections that do not move.
    const LEARNING_RATE: f64 = 1e-2;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("dropout", "vera_dropout"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r + d_out per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Vera;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::dropout("vera_dropout", self.dropout)?;
        if !self.d_initial.is_finite() {
            return Err(Error::config("d_initial", self.d_initial, "must be a number"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let sites = self.sites(base)?;
        let [d_in, d_out] = checks::largest(&sites);
        let projections = Size::new("r", self.rank, self.rank as f64 * (d_in + d_out) as f64);
        let projections =
            if self.save_projection { projections } else { projections.not_in_file() };
        Ok(vec![projections, Size::new("r", self.rank, self.rank as f64 * sites.len() as f64)])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Vera> {
        self.validate()?;
        Vera::new(self, context)
    }
}
