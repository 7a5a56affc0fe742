//! The configuration of LoHa, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets, pattern_value, unmatched_patterns,
};
use serde::{Deserialize, Serialize};

use super::Loha;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Loha`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of each of the two products |
/// | `alpha` | 8 | scale: `alpha / r` |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `rank_pattern`, `alpha_pattern` | empty | values for some modules, see [`PatternMap`] |
/// | `rank_dropout` | 0 | probability of leaving an output of a layer as it is, in a step of training; the others' change is scaled up by their share |
/// | `module_dropout` | 0 | probability of leaving a layer as it is, in a step of training |
/// | `init_weights` (`init`) | true | the change starts at zero; false: all factors are random, which is not the base; for tests |
/// | `use_effective_conv2d` | false | for convolutions, so that true is an error |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LohaConfig {
    /// Rank of each product.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Ranks of some modules.
    pub rank_pattern: PatternMap<usize>,
    /// Alphas of some modules.
    pub alpha_pattern: PatternMap<f64>,
    /// Probability of leaving an output as it is.
    pub rank_dropout: f64,
    /// Probability of leaving a layer as it is.
    pub module_dropout: f64,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
    /// For convolutions.
    pub use_effective_conv2d: bool,
}

impl Default for LohaConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            targets: Targets::default(),
            rank_pattern: PatternMap::default(),
            alpha_pattern: PatternMap::default(),
            rank_dropout: 0.0,
            module_dropout: 0.0,
            init: true,
            use_effective_conv2d: false,
        }
    }
}

impl LohaConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }

    /// The rank at a module.
    ///
    /// # Errors
    /// If a key of `rank_pattern` is not a regular expression.
    pub fn rank_at(&self, path: &str) -> Result<usize> {
        pattern_value("rank_pattern", &self.rank_pattern, path, self.rank)
    }

    /// The scale at a module: `alpha / r`.
    ///
    /// # Errors
    /// If a key of `rank_pattern` or `alpha_pattern` is not a regular expression.
    pub fn scaling(&self, path: &str) -> Result<f64> {
        let alpha = pattern_value("alpha_pattern", &self.alpha_pattern, path, self.alpha)?;
        Ok(alpha / self.rank_at(path)? as f64)
    }
}

impl MethodConfig for LohaConfig {
    const NAME: &'static str = "loha";
    const PEFT_TYPE: &'static str = "LOHA";
    const ABOUT: &'static str = "Hadamard products of two low ranks (Hyeon-Woo et al. 2021)";
    // LoRA's: the change is of the same size, and so are its parts.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "2 r (d_in + d_out) per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Loha;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &self.rank_pattern)?;
        checks::scales("alpha", self.alpha, ("alpha_pattern", &self.alpha_pattern))?;
        checks::dropout("rank_dropout", self.rank_dropout)?;
        checks::dropout("module_dropout", self.module_dropout)?;
        checks::no_convolutions(self.use_effective_conv2d)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.sites(base)?;
        let mut unmatched = self.targets.unmatched(base, DEFAULT_ROLES)?;
        unmatched.extend(unmatched_patterns("rank_pattern", &self.rank_pattern, &sites)?);
        unmatched.extend(unmatched_patterns("alpha_pattern", &self.alpha_pattern, &sites)?);
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let rank = self.rank_at(&site.path)?;
            let field = if rank == self.rank { "r" } else { "rank_pattern" };
            let width = 2 * (site.d_in() + site.d_out());
            Ok(Size::new(field, rank, rank as f64 * width as f64))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Loha> {
        self.validate()?;
        Loha::new(self, context)
    }
}
