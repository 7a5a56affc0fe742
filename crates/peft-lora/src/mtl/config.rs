//! The configuration of MTL-LoRA, with the fields of adapter-hub/adapters under HF PEFT's names for LoRA.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MtlLora, adapters_format};
use crate::checks::{self, DEFAULT_ROLES};

/// What a task has between the factors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskMatrix {
    /// A diagonal matrix.
    #[default]
    SingularValues,
    /// A full one.
    Linear,
}

impl TaskMatrix {
    /// How many rows of `rank` values it has.
    pub(super) fn height(self, rank: usize) -> usize {
        match self {
            Self::SingularValues => 1,
            Self::Linear => rank,
        }
    }
}

/// Configuration of [`MtlLora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of the factors |
/// | `lora_alpha` (`alpha`) | 8 | scale: `alpha / r` |
/// | `lora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `num_tasks` | 1 | the tasks that share the factors; adapter-hub/adapters has a file for each |
/// | `n_up_projection` | 1 | `n`, how many `B_i` there are |
/// | `task_specific_matrix_type` | `singular_values` | what `Λ_t` is: diagonal, or `linear`, full |
/// | `weights_sharpness` | 0.05 | `τ`: the smaller, the more one `B_i` outweighs the others |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MtlLoraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(rename = "lora_alpha", serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "lora_dropout")]
    pub dropout: f64,
    /// The tasks that share the factors.
    pub num_tasks: usize,
    /// How many factors `B_i` there are.
    pub n_up_projection: usize,
    /// What a task has between the factors.
    pub task_specific_matrix_type: TaskMatrix,
    /// `τ`.
    pub weights_sharpness: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for MtlLoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            num_tasks: 1,
            n_up_projection: 1,
            task_specific_matrix_type: TaskMatrix::default(),
            weights_sharpness: 0.05,
            targets: Targets::default(),
        }
    }
}

impl MtlLoraConfig {
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

impl MethodConfig for MtlLoraConfig {
    const NAME: &'static str = "mtl-lora";
    const PEFT_TYPE: &'static str = "MTL_LORA";
    const ABOUT: &'static str = "LoRA whose factors several tasks share (Yang et al. 2024)";
    // LoRA's.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("alpha", "lora_alpha"), ("dropout", "lora_dropout")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + n d_out) per matrix, and r + n of each task",
        merges: "one task",
        formats: "adapters",
    };
    type Method = MtlLora;

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
        for (field, value) in
            [("num_tasks", self.num_tasks), ("n_up_projection", self.n_up_projection)]
        {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
        }
        let sharpness = self.weights_sharpness;
        if !(sharpness.is_finite() && sharpness > 0.0) {
            return Err(Error::config("weights_sharpness", sharpness, "must be a positive number"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let [rank, count, tasks] =
            [self.rank, self.n_up_projection, self.num_tasks].map(|number| number as f64);
        let height = self.task_specific_matrix_type.height(self.rank) as f64;
        let at = |site: &Site| {
            let [d_in, d_out] = site.shape.map(|size| size as f64);
            [
                Size::new("n_up_projection", self.n_up_projection, count * rank * d_out),
                Size::new("r", self.rank, rank * d_in),
                Size::new("num_tasks", self.num_tasks, tasks * (height * rank + count)),
            ]
        };
        Ok(self.sites(base)?.into_iter().flat_map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<MtlLora> {
        self.validate()?;
        MtlLora::new(self, context)
    }
}
