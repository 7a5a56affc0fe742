//! The configuration of RandLoRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Randlora;
use super::bases::{Bases, Kind};
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Randlora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 32 | rank of each base: the lower it is, the more bases there are, and the more is trained |
/// | `randlora_alpha` (`alpha`) | 640 | scale: `alpha / r` |
/// | `randlora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `projection_prng_key` | 0 | the seed of the bases, which are those that HF PEFT makes from it on a CPU |
/// | `save_projection` | true | whether the file holds the bases; if not, they are made again from the seed |
/// | `sparse` | false | bases of -1, 0 and 1, a third of them not 0 |
/// | `very_sparse` | false | the same with one in `sqrt(d)`, the smaller side's |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `randlora_only` |
/// | `init_weights` (`init`) | true | `λ` starts at zero; false: at random, which is not the base; for tests |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RandloraConfig {
    /// Rank of each base.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(rename = "randlora_alpha", serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "randlora_dropout")]
    pub dropout: f64,
    /// The seed of the bases.
    pub projection_prng_key: u64,
    /// Whether they are in the file.
    pub save_projection: bool,
    /// Whether most of their values are zero.
    pub sparse: bool,
    /// Whether nearly all are.
    pub very_sparse: bool,
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

impl Default for RandloraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            alpha: 640.0,
            dropout: 0.0,
            projection_prng_key: 0,
            save_projection: true,
            sparse: false,
            very_sparse: false,
            targets: Targets::default(),
            bias: LoraBias::None,
            init: true,
            fan_in_fan_out: false,
        }
    }
}

impl RandloraConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }

    /// The scale: `alpha / r`.
    pub fn scaling(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    pub(super) fn bases(&self, base: &Base) -> Result<Bases> {
        Ok(Bases::new(self.rank.max(1), checks::largest(&self.sites(base)?)))
    }

    pub(super) fn kind(&self, smaller: usize) -> Kind {
        match (self.very_sparse, self.sparse) {
            (true, _) => Kind::Sparse((smaller as f64).sqrt()),
            (false, true) => Kind::Sparse(3.0),
            (false, false) => Kind::Dense,
        }
    }
}

impl MethodConfig for RandloraConfig {
    const NAME: &'static str = "randlora";
    const PEFT_TYPE: &'static str = "RANDLORA";
    const ABOUT: &'static str = "full ranks from shared random bases (Albert et al. 2025)";
    // The paper's, for language models.
    const LEARNING_RATE: f64 = 1e-4;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("alpha", "randlora_alpha"),
        ("dropout", "randlora_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "m + m² / r per matrix, m = min(d_in, d_out)",
        merges: "yes",
        formats: "peft",
    };
    type Method = Randlora;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::scales("randlora_alpha", self.alpha, ("", &PatternMap::default()))?;
        checks::dropout("randlora_dropout", self.dropout)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let bases = Size::new("r", self.rank, self.bases(base)?.num_values());
        let bases = if self.save_projection { bases } else { bases.not_in_file() };
        let at = |site: &Site| {
            let least = site.d_in().min(site.d_out());
            let count = least.div_ceil(self.rank.max(1));
            Size::new("r", self.rank, self.rank as f64 * count as f64 + count as f64 * least as f64)
        };
        let layers = self.sites(base)?.into_iter().map(at);
        Ok([bases].into_iter().chain(layers).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Randlora> {
        self.validate()?;
        Randlora::new(self, context)
    }
}
