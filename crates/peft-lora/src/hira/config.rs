//! The configuration of HiRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Role, Site, SiteKind, Size, Targets, pattern_value, unmatched_patterns,
};
use serde::{Deserialize, Serialize};

use super::Hira;
use crate::checks::{self, DEFAULT_ROLES};
use crate::flag_or_name::flag_or_name;

/// What HiRA can adapt.
const KINDS: &[SiteKind] = &[SiteKind::Linear, SiteKind::Embedding];

flag_or_name! {
    /// How the factors start; HF PEFT's `init_weights`.
    HiraInit {
        /// `true`: `A ~ U(-1/sqrt(d_in), 1/sqrt(d_in))`, `B = 0`; at an embedding `A = 0`, `B ~ N(0, 1)`.
        true => Kaiming,
        /// `false`: both normal, which is not the base; for tests.
        false => Random,
        /// `"gaussian"`: `A ~ N(0, 1/r)`, `B = 0`.
        "gaussian" => Gaussian,
    }
}

/// Configuration of [`Hira`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 32 | rank of the factors |
/// | `hira_dropout` (`dropout`) | 0 | dropout on the input of the change, in training, which takes a second product with the weight; not at embeddings |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`]; an embedding where it is named |
/// | `rank_pattern` | empty | ranks of some modules, see [`PatternMap`] |
/// | `init_weights` (`init`) | true | see [`HiraInit`] |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HiraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Dropout on the input of the change.
    #[serde(rename = "hira_dropout")]
    pub dropout: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Ranks of some modules.
    pub rank_pattern: PatternMap<usize>,
    /// How the factors start.
    #[serde(rename = "init_weights")]
    pub init: HiraInit,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
}

impl Default for HiraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            dropout: 0.0,
            targets: Targets::default(),
            rank_pattern: PatternMap::default(),
            init: HiraInit::Kaiming,
            fan_in_fan_out: false,
        }
    }
}

impl HiraConfig {
    /// The linear layers and embeddings of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let mut sites = self.targets.resolve_kinds(base, KINDS, DEFAULT_ROLES)?;
        sites.retain(|site| site.role != Role::RelativePosition);
        Ok(sites)
    }

    /// The rank at a module.
    ///
    /// # Errors
    /// If a key of `rank_pattern` is not a regular expression.
    pub fn rank_at(&self, path: &str) -> Result<usize> {
        pattern_value("rank_pattern", &self.rank_pattern, path, self.rank)
    }
}

impl MethodConfig for HiraConfig {
    const NAME: &'static str = "hira";
    const PEFT_TYPE: &'static str = "HIRA";
    const ABOUT: &'static str = "low ranks that multiply the weight (Huang et al. 2025)";
    // Weights of a small encoder are of the order of 0.04, which the product with them takes off
    // LoRA's change: the paper's rates are ten times as high as LoRA's too.
    const LEARNING_RATE: f64 = 5e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("dropout", "hira_dropout"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + d_out) per matrix",
        merges: "yes; no inverse",
        formats: "peft",
    };
    type Method = Hira;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let fan_in_fan_out = self.sites(base)?.iter().any(|site| site.fan_in_fan_out);
        let targets = self.targets.named(base, KINDS, DEFAULT_ROLES)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &self.rank_pattern)?;
        checks::dropout("hira_dropout", self.dropout)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.sites(base)?;
        let mut unmatched = self.targets.unmatched_kinds(base, KINDS, DEFAULT_ROLES)?;
        unmatched.extend(unmatched_patterns("rank_pattern", &self.rank_pattern, &sites)?);
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let rank = self.rank_at(&site.path)?;
            let field = if rank == self.rank { "r" } else { "rank_pattern" };
            Ok(Size::new(field, rank, rank as f64 * (site.d_in() + site.d_out()) as f64))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Hira> {
        self.validate()?;
        Hira::new(self, context)
    }
}
