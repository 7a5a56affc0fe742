//! The configuration of DeLoRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets, pattern_value, unmatched_patterns,
};
use serde::{Deserialize, Serialize};

use super::Delora;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Delora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of the factors |
/// | `delora_lambda` (`lambda`) | 15 | where the strength `λ` starts |
/// | `module_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `rank_pattern`, `lambda_pattern` | empty | values for some modules, see [`PatternMap`] |
/// | `bias` | `none` | `none`, `all`, `delora_only` |
/// | `init_weights` (`init`) | true | `B` starts at zero; false: at random, which is not the base; for tests |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeloraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Where the strength starts.
    #[serde(rename = "delora_lambda", serialize_with = "peft_core::whole_if_it_is")]
    pub lambda: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "module_dropout")]
    pub dropout: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Ranks of some modules.
    pub rank_pattern: PatternMap<usize>,
    /// Strengths of some modules.
    pub lambda_pattern: PatternMap<f64>,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for DeloraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            lambda: 15.0,
            dropout: 0.0,
            targets: Targets::default(),
            rank_pattern: PatternMap::default(),
            lambda_pattern: PatternMap::default(),
            bias: LoraBias::None,
            init: true,
        }
    }
}

impl DeloraConfig {
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

    /// Where the strength starts at a module.
    ///
    /// # Errors
    /// If a key of `lambda_pattern` is not a regular expression.
    pub fn lambda_at(&self, path: &str) -> Result<f64> {
        pattern_value("lambda_pattern", &self.lambda_pattern, path, self.lambda)
    }
}

impl MethodConfig for DeloraConfig {
    const NAME: &'static str = "delora";
    const PEFT_TYPE: &'static str = "DELORA";
    const ABOUT: &'static str = "low ranks of bounded strength (Bini et al. 2025)";
    // LoRA's: what a step changes is the direction, of which the length is no part.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("lambda", "delora_lambda"),
        ("dropout", "module_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + d_out) + 1 per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Delora;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &self.rank_pattern)?;
        let pattern = ("lambda_pattern", &self.lambda_pattern);
        checks::scales("delora_lambda", self.lambda, pattern)?;
        checks::dropout("module_dropout", self.dropout)?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.sites(base)?;
        let mut unmatched = self.targets.unmatched(base, DEFAULT_ROLES)?;
        unmatched.extend(unmatched_patterns("rank_pattern", &self.rank_pattern, &sites)?);
        unmatched.extend(unmatched_patterns("lambda_pattern", &self.lambda_pattern, &sites)?);
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

    fn init(&self, context: &InitContext<'_>) -> Result<Delora> {
        self.validate()?;
        Delora::new(self, context)
    }
}
