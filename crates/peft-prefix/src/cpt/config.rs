//! The configuration of context-aware prompt tuning, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Size,
};
use serde::{Deserialize, Serialize};

use super::Cpt;
use crate::model::{ModelDimensions, virtual_tokens};

/// Configuration of [`Cpt`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `cpt_token_ids` (`context`) | `[0]` | the context, as indices of words |
/// | `cpt_tokens_type_mask` (`types`) | all 1 | what each token is, modulo 4: 1 the template of an input, 2 an input, 3 the template of an answer, 0 an answer, which stays as it is |
/// | `opt_projection_epsilon` (`epsilon`) | 0.1 | how far an input may move |
/// | `opt_projection_format_epsilon` (`format_epsilon`) | 0.1 | how far a template may move |
/// | `opt_weighted_loss_type`, `opt_loss_decay_factor` | `none`, 1 | for PEFT: how its loss weighs the answers of the context, which are no part of the loss here; carried in files, and a new adapter cannot ask for `decay` |
/// | `cpt_mask` | all 1 | for PEFT, which does not read it; carried |
/// | `tokenizer_name_or_path` | none | for PEFT; carried |
/// | `inference_mode` | false | true in files: the prompt is there, and needs no start |
/// | `num_virtual_tokens`, `token_dim`, ... | | for PEFT: the length of the context, and see [`ModelDimensions`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CptConfig {
    /// The context.
    pub cpt_token_ids: Option<Vec<usize>>,
    /// Which of it counts, for PEFT.
    pub cpt_mask: Option<Vec<usize>>,
    /// What each token of it is.
    pub cpt_tokens_type_mask: Option<Vec<usize>>,
    /// How far an input may move.
    pub opt_projection_epsilon: f64,
    /// How far a template may move.
    pub opt_projection_format_epsilon: f64,
    /// How HF PEFT weighs the answers of the context.
    pub opt_weighted_loss_type: Option<String>,
    /// By how much.
    pub opt_loss_decay_factor: f64,
    /// HF PEFT's tokenizer.
    pub tokenizer_name_or_path: Option<String>,
    /// The length of the context.
    pub num_virtual_tokens: Option<usize>,
    /// Whether the prompt is read from a file.
    pub inference_mode: bool,
    /// What HF PEFT notes about the model.
    #[serde(flatten)]
    pub model: ModelDimensions,
}

impl Default for CptConfig {
    fn default() -> Self {
        Self {
            cpt_token_ids: None,
            cpt_mask: None,
            cpt_tokens_type_mask: None,
            opt_projection_epsilon: 0.1,
            opt_projection_format_epsilon: 0.1,
            opt_weighted_loss_type: Some("none".into()),
            opt_loss_decay_factor: 1.0,
            tokenizer_name_or_path: None,
            num_virtual_tokens: None,
            inference_mode: false,
            model: ModelDimensions::default(),
        }
    }
}

impl CptConfig {
    /// The context.
    pub fn context(&self) -> Vec<usize> {
        self.cpt_token_ids.clone().unwrap_or_else(|| vec![0])
    }

    /// How far each token of it may move, in a model of width `d`: the fields are of a width of 2048.
    pub(super) fn epsilons(&self, d: usize) -> Vec<f64> {
        let scale = (d as f64 / 2048.0).sqrt();
        let types = self.cpt_tokens_type_mask.clone();
        let types = types.unwrap_or_else(|| vec![1; self.context().len()]);
        let of = |kind: usize| match kind % 4 {
            1 | 3 => self.opt_projection_format_epsilon * scale,
            2 => self.opt_projection_epsilon * scale,
            _ => 0.0,
        };
        types.into_iter().map(of).collect()
    }
}

impl MethodConfig for CptConfig {
    const NAME: &'static str = "cpt";
    const PEFT_TYPE: &'static str = "CPT";
    const ABOUT: &'static str = "examples as a prompt that moves a little (Blau et al. 2024)";
    // Of the order of the paper's, whose projection bounds what a step can do.
    const LEARNING_RATE: f64 = 1e-3;
    const PROMPT_LEARNING: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("context", "cpt_token_ids"),
        ("types", "cpt_tokens_type_mask"),
        ("epsilon", "opt_projection_epsilon"),
        ("format_epsilon", "opt_projection_format_epsilon"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "the embeddings",
        trainable: "L d",
        merges: "no",
        formats: "peft",
    };
    type Method = Cpt;

    fn for_file(&self, _base: &Base) -> Result<Self> {
        let context = self.context();
        let length = context.len();
        Ok(Self {
            cpt_mask: self.cpt_mask.clone().or_else(|| Some(vec![1; length])),
            cpt_tokens_type_mask: Some(
                self.cpt_tokens_type_mask.clone().unwrap_or_else(|| vec![1; length]),
            ),
            cpt_token_ids: Some(context),
            num_virtual_tokens: Some(length),
            ..self.clone()
        })
    }

    fn validate(&self) -> Result<()> {
        let length = self.context().len();
        if length == 0 {
            return Err(Error::config("cpt_token_ids", "[]", "must hold at least one token"));
        }
        let lengths = [
            ("cpt_mask", self.cpt_mask.as_ref().map(Vec::len)),
            ("cpt_tokens_type_mask", self.cpt_tokens_type_mask.as_ref().map(Vec::len)),
            ("num_virtual_tokens", self.num_virtual_tokens),
        ];
        for (field, found) in lengths {
            if let Some(found) = found.filter(|found| *found != length) {
                let expected = format!("must be as long as cpt_token_ids, {length}");
                return Err(Error::config(field, found, expected));
            }
        }
        for (field, epsilon) in [
            ("opt_projection_epsilon", self.opt_projection_epsilon),
            ("opt_projection_format_epsilon", self.opt_projection_format_epsilon),
        ] {
            if !(epsilon.is_finite() && epsilon >= 0.0) {
                return Err(Error::config(field, epsilon, "must be a number, 0 or above"));
            }
        }
        match self.opt_weighted_loss_type.as_deref() {
            None | Some("none") => {}
            Some("decay") if self.inference_mode => {}
            Some("decay") => {
                let expected =
                    "weighs the answers of the context, which are no part of the loss here";
                return Err(Error::config("opt_weighted_loss_type", "\"decay\"", expected));
            }
            Some(other) => {
                let expected = "must be \"none\" or \"decay\"";
                return Err(Error::config(
                    "opt_weighted_loss_type",
                    format!("{other:?}"),
                    expected,
                ));
            }
        }
        self.model.validate()
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let size = virtual_tokens(self.context().len(), base)?;
        Ok(vec![Size { field: "cpt_token_ids".into(), ..size }])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Cpt> {
        self.validate()?;
        Cpt::new(self, context)
    }
}
