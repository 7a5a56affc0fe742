//! The configuration of LoKr, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets, nearest_divisors, pattern_value, unmatched_patterns,
};
use serde::{Deserialize, Serialize};

use super::{FactorShape, Lokr};
use crate::checks::{self, DEFAULT_ROLES};
use crate::flag_or_name::flag_or_name;

flag_or_name! {
    /// How the factors start; HF PEFT's `init_weights`.
    LokrInit {
        /// `true`: `W₁` at zero, or the part of its product on the side of the outputs; the rest random.
        true => Zero,
        /// `false`: all random, which is not the base; for tests.
        false => Random,
        /// `"lycoris"`: `W₂` at zero, or the part of its product on the side of the inputs.
        "lycoris" => Lycoris,
    }
}

/// Configuration of [`Lokr`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of the factors that are products |
/// | `alpha` | 8 | scale: `alpha / r` |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `rank_pattern`, `alpha_pattern` | empty | values for some modules, see [`PatternMap`] |
/// | `rank_dropout` | 0 | probability of leaving an output of a layer as it is, in a step of training |
/// | `rank_dropout_scale` | false | whether the change of the other outputs is then scaled up by their share |
/// | `module_dropout` | 0 | probability of leaving a layer as it is, in a step of training |
/// | `init_weights` (`init`) | true | see [`LokrInit`] |
/// | `decompose_both` | false | `W₁` is a product too, where that is smaller |
/// | `decompose_factor` | -1 | how `d_in` and `d_out` are divided: a number that one part is, or comes near; -1: as evenly as they can be |
/// | `use_effective_conv2d` | false | for convolutions, so that true is an error |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LokrConfig {
    /// Rank of the factors that are products.
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
    /// Whether the other outputs' change is scaled up by their share.
    pub rank_dropout_scale: bool,
    /// How the factors start.
    #[serde(rename = "init_weights")]
    pub init: LokrInit,
    /// Whether `W₁` can be a product too.
    pub decompose_both: bool,
    /// How the sides of a weight are divided.
    pub decompose_factor: i64,
    /// For convolutions.
    pub use_effective_conv2d: bool,
}

impl Default for LokrConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            targets: Targets::default(),
            rank_pattern: PatternMap::default(),
            alpha_pattern: PatternMap::default(),
            rank_dropout: 0.0,
            module_dropout: 0.0,
            rank_dropout_scale: false,
            init: LokrInit::Zero,
            decompose_both: false,
            decompose_factor: -1,
            use_effective_conv2d: false,
        }
    }
}

impl LokrConfig {
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

    /// The shapes of `W₁` and `W₂` at a site.
    pub(super) fn factors_at(&self, site: &Site) -> Result<[FactorShape; 2]> {
        let rank = self.rank_at(&site.path)?;
        let (m, n) = divided(site.d_in(), self.decompose_factor);
        let (k, l) = divided(site.d_out(), self.decompose_factor);
        let shape = |inputs: usize, outputs: usize, may_be_product: bool| {
            let is_product = may_be_product && rank < inputs.max(outputs).div_ceil(2);
            FactorShape { inputs, outputs, rank: is_product.then_some(rank) }
        };
        Ok([shape(m, k, self.decompose_both), shape(n, l, true)])
    }
}

/// A number as a product `m n`, `m ≤ n`: of `factor`, if that divides it, and otherwise of the `m` up to
/// it with the smallest sum, as the reference finds it.
fn divided(number: usize, factor: i64) -> (usize, usize) {
    let limit = match usize::try_from(factor) {
        Ok(factor) if factor > 0 && number.is_multiple_of(factor) => {
            return (factor, number / factor);
        }
        Ok(factor) => factor,
        Err(_) if factor == -1 => return nearest_divisors(number).into(),
        Err(_) => 0,
    };
    let (mut m, mut n) = (1, number);
    while m < n {
        let Some(next) = (m + 1..=number).find(|next| number.is_multiple_of(*next)) else { break };
        if next + number / next > m + n || next > limit {
            break;
        }
        (m, n) = (next, number / next);
    }
    (m.min(n), m.max(n))
}

impl MethodConfig for LokrConfig {
    const NAME: &'static str = "lokr";
    const PEFT_TYPE: &'static str = "LOKR";
    const ABOUT: &'static str = "Kronecker products (Yeh et al. 2023)";
    // LoRA's: the change is of the same size, and so are its parts.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "about sqrt(d_in d_out) + r (sqrt(d_in) + sqrt(d_out)) per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Lokr;

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
            let values = self.factors_at(site)?.map(FactorShape::num_values);
            Ok(Size::new(field, rank, values.iter().sum::<usize>() as f64))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Lokr> {
        self.validate()?;
        Lokr::new(self, context)
    }
}

#[cfg(test)]
mod tests {
    use super::divided;

    #[test]
    fn numbers_are_divided_as_in_the_reference() {
        // What its own documentation says of these.
        assert_eq!(divided(256, -1), (16, 16));
        assert_eq!(divided(128, -1), (8, 16));
        assert_eq!(divided(127, -1), (1, 127));
        assert_eq!(divided(128, 4), (4, 32));
        // A factor that does not divide is a limit; one that does is taken, on which side it falls.
        assert_eq!(divided(250, 8), (5, 50));
        assert_eq!(divided(64, 32), (32, 2));
        assert_eq!(divided(1, -1), (1, 1));
    }
}
