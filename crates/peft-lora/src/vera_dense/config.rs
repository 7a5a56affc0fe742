//! The configuration of VeRA with full matrices.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DenseVera, adapters_format};
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`DenseVera`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of the shared factors |
/// | `lora_alpha` (`alpha`) | 8 | scale: `alpha / r` |
/// | `lora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `d_initial` (`vera_d`) | 0.1 | the diagonal of `D` at the start |
/// | `b_initial` (`vera_b`) | 0 | the diagonal of `M` at the start |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`]; layers of one shape |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DenseVeraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(rename = "lora_alpha", serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "lora_dropout")]
    pub dropout: f64,
    /// Where the diagonal of `D` starts.
    pub d_initial: f64,
    /// Where the diagonal of `M` starts.
    pub b_initial: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for DenseVeraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            d_initial: 0.1,
            b_initial: 0.0,
            targets: Targets::default(),
        }
    }
}

impl DenseVeraConfig {
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
}

impl MethodConfig for DenseVeraConfig {
    const NAME: &'static str = "vera-dense";
    const PEFT_TYPE: &'static str = "VERA_DENSE";
    const ABOUT: &'static str = "VeRA with matrices for vectors, as adapter-hub/adapters has it";
    // LoRA's: its matrices are as large as weights, not vectors between fixed projections.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("vera_d", "d_initial"),
        ("vera_b", "b_initial"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + d_out), and r² + d_out² per matrix",
        merges: "yes",
        formats: "adapters",
    };
    type Method = DenseVera;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::scales("lora_alpha", self.alpha, ("", &PatternMap::default()))?;
        checks::dropout("lora_dropout", self.dropout)?;
        for (field, value) in [("d_initial", self.d_initial), ("b_initial", self.b_initial)] {
            if !value.is_finite() {
                return Err(Error::config(field, value, "must be a number"));
            }
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let sites = self.sites(base)?;
        let [d_in, d_out] = checks::largest(&sites).map(|size| size as f64);
        let rank = self.rank as f64;
        let own = sites.len() as f64 * (rank * rank + d_out * d_out);
        Ok(vec![Size::new("r", self.rank, rank * (d_in + d_out) + own)])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<DenseVera> {
        self.validate()?;
        DenseVera::new(self, context)
    }
}
