//! The configuration of KronA.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, KroneckerShape, MethodCard, MethodConfig,
    PatternMap, Result, Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Krona;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Krona`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `a_inputs`, `a_outputs` | none | the sides of `A`, see [`KroneckerShape`] |
/// | `scale` | 1 | `s` |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `init_weights` (`init`) | true | `A ~ N(0, 1/m)`, `B = 0`; false: `B ~ N(0, 1/n)` too, which is not the base; for tests |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KronaConfig {
    /// The sides of `A`.
    #[serde(flatten)]
    pub shape: KroneckerShape,
    /// The scale.
    #[serde(serialize_with = "peft_core::whole_if_it_is")]
    pub scale: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for KronaConfig {
    fn default() -> Self {
        let (shape, targets) = (KroneckerShape::default(), Targets::default());
        Self { shape, scale: 1.0, targets, init: true }
    }
}

impl KronaConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }
}

impl MethodConfig for KronaConfig {
    const NAME: &'static str = "krona";
    const PEFT_TYPE: &'static str = "KRONA";
    const ABOUT: &'static str = "a Kronecker product beside the weight (Edalati et al. 2022)";
    // LoKr's, which is the same function with factors of lower ranks.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "about 2 sqrt(d_in d_out) per matrix",
        merges: "yes",
        formats: "",
    };
    type Method = Krona;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::scales("scale", self.scale, ("", &PatternMap::default()))?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let [[m, k], [n, l]] = self.shape.at(site)?;
            let values = m as f64 * k as f64 + n as f64 * l as f64;
            Ok(Size::new("a_inputs, a_outputs", format!("{m}, {k}"), values))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Krona> {
        self.validate()?;
        Krona::new(self, context)
    }
}
