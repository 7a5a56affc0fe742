//! The configuration of VB-LoRA, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, PatternMap, Result,
    Site, Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::Vblora;
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// Configuration of [`Vblora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 4 | rank of the factors |
/// | `num_vectors` | 256 | `h`, how many vectors the bank has |
/// | `vector_length` | 256 | `b`, how long they are; divides both sides of every layer that is adapted |
/// | `topk` | 2 | how many of them each piece of a factor is mixed from |
/// | `save_only_topk_weights` | false | whether the file holds these and their weights instead of all logits; such an adapter is for use, and trains on among the vectors that it has chosen |
/// | `vblora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `init_vector_bank_bound` | 0.02 | the vectors start uniform between this and its negative |
/// | `init_logits_std` | 0.1 | the standard deviation of the logits' start |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `vblora_only` |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VbloraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// How many vectors there are.
    pub num_vectors: usize,
    /// How long each is.
    pub vector_length: usize,
    /// How many of them are mixed.
    pub topk: usize,
    /// Whether a file holds nothing of the others.
    pub save_only_topk_weights: bool,
    /// Dropout on the input of the factors.
    #[serde(rename = "vblora_dropout")]
    pub dropout: f64,
    /// How far from zero the vectors start.
    pub init_vector_bank_bound: f64,
    /// How far from each other the logits start.
    pub init_logits_std: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
}

impl Default for VbloraConfig {
    fn default() -> Self {
        Self {
            rank: 4,
            num_vectors: 256,
            vector_length: 256,
            topk: 2,
            save_only_topk_weights: false,
            dropout: 0.0,
            init_vector_bank_bound: 0.02,
            init_logits_std: 0.1,
            targets: Targets::default(),
            bias: LoraBias::None,
            fan_in_fan_out: false,
        }
    }
}

impl VbloraConfig {
    /// The linear layers of `base` that are adapted.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve(base, DEFAULT_ROLES)
    }

    /// How many vectors `width` values are; the length must divide it.
    pub(super) fn pieces(&self, width: usize, site: &Site) -> Result<usize> {
        let length = self.vector_length;
        if length == 0 || !width.is_multiple_of(length) {
            let [d_in, d_out] = site.shape;
            let expected = format!("must divide both sides of {site}, {d_in} and {d_out}");
            return Err(Error::config("vector_length", length, expected));
        }
        Ok(width / length)
    }
}

impl MethodConfig for VbloraConfig {
    const NAME: &'static str = "vb-lora";
    const PEFT_TYPE: &'static str = "VBLORA";
    const ABOUT: &'static str = "factors mixed from one bank of vectors (Li et al. 2024)";
    // The paper's for the logits; the bank learns at a tenth of it (`lr_factors`).
    const LEARNING_RATE: f64 = 1e-2;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("dropout", "vblora_dropout")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "h b + h r (d_in + d_out) / b per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Vblora;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = checks::for_file(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &PatternMap::default())?;
        checks::dropout("vblora_dropout", self.dropout)?;
        for (field, value) in
            [("num_vectors", self.num_vectors), ("vector_length", self.vector_length)]
        {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
        }
        if !(1..=self.num_vectors).contains(&self.topk) {
            let most = self.num_vectors;
            let expected = format!("must be from 1 to num_vectors, which is {most}");
            return Err(Error::config("topk", self.topk, expected));
        }
        if self.save_only_topk_weights && self.topk == 1 {
            let expected = "must be at least 2 with save_only_topk_weights: of one vector there is no \
                            weight to save";
            return Err(Error::config("topk", 1, expected));
        }
        let bound = self.init_vector_bank_bound;
        if !(bound.is_finite() && bound > 0.0) {
            let expected = "must be a number above 0: vectors of zeros have no gradient";
            return Err(Error::config("init_vector_bank_bound", bound, expected));
        }
        let std = self.init_logits_std;
        if !(std.is_finite() && std >= 0.0) {
            return Err(Error::config("init_logits_std", std, "must be a number, 0 or above"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let [vectors, length, rank] =
            [self.num_vectors, self.vector_length, self.rank].map(|number| number as f64);
        let bank = Size::new("num_vectors", self.num_vectors, vectors * length);
        let at = |site: &Site| {
            let pieces = (site.d_in() + site.d_out()) as f64 / length.max(1.0);
            let size = Size::new("num_vectors", self.num_vectors, vectors * rank * pieces);
            if self.save_only_topk_weights { size.not_in_file() } else { size }
        };
        Ok([bank].into_iter().chain(self.sites(base)?.into_iter().map(at)).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Vblora> {
        self.validate()?;
        Vblora::new(self, context)
    }
}
