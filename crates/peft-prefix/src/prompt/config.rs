//! The configuration of prompt tuning.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Size,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::adapters_format;
use crate::model::{ModelDimensions, at_least_one, or_default, virtual_tokens};
use crate::prompt::PromptTuning;

/// What a prompt starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptInit {
    /// Values from `N(0, 1)`, or uniform ones with `random_uniform_scale`.
    #[default]
    Random,
    /// The embeddings of a text's tokens, repeated or cut to the prompt's length.
    Text,
    /// The embeddings of tokens drawn from the vocabulary.
    SampleVocab,
}

/// Where the prompt goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Before the text.
    #[default]
    Prefix,
    /// After the first token of the text, so that a head which reads the first place still reads
    /// that token.
    PrefixAfterBos,
}

/// Configuration of [`PromptTuning`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `num_virtual_tokens` (`prompt_length`) | 20 | length `L` of the prompt |
/// | `prompt_tuning_init` (`init`) | `RANDOM` | see [`PromptInit`] |
/// | `prompt_tuning_init_text` (`init_text`) | none | the text of `TEXT` |
/// | `prompt_tuning_init_ids` (`init_ids`) | none | the tokens of that text, if not those that the tokenizer at hand gives |
/// | `tokenizer_name_or_path` (`tokenizer`) | none | HF PEFT's tokenizer for that text; carried, and asked for by HF PEFT |
/// | `random_uniform_scale` (`uniform_scale`) | none | `RANDOM` from `U(-scale, scale)`, as adapter-hub/adapters (0.5) |
/// | `combine` (`place`) | `prefix` | see [`Combine`] |
/// | `after_embeddings` (`after_norm`) | false | true: after positions and the embeddings' norm, as adapter-hub/adapters; false: before, as HF PEFT |
/// | `intrinsic_dimension` (`dimension`) | none | IPT: the prompt is decoded from so many numbers, which alone are trained |
/// | `decoder` (`subspace`) | none | the directory or file of the [`PromptSubspace`](crate::PromptSubspace) that decodes them |
/// | `inference_mode` | false | true in files: the prompt is there, and needs no start |
/// | `num_layers`, `token_dim`, ... | | see [`ModelDimensions`] |
///
/// `prompt_tuning_init_ids`, `random_uniform_scale`, `combine` and `after_embeddings` are ours, and
/// written only where they differ from the default. So are `intrinsic_dimension` and `decoder`, which no
/// file has: after training there is a prompt, and no decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTuningConfig {
    /// The length of the prompt.
    pub num_virtual_tokens: usize,
    /// What the prompt starts from.
    #[serde(deserialize_with = "or_default")]
    pub prompt_tuning_init: PromptInit,
    /// The text that it starts from.
    pub prompt_tuning_init_text: Option<String>,
    /// The tokens of that text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tuning_init_ids: Option<Vec<usize>>,
    /// The tokenizer that HF PEFT reads the text with.
    pub tokenizer_name_or_path: Option<String>,
    /// The bound of uniform random values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_uniform_scale: Option<f64>,
    /// Where the prompt goes.
    #[serde(skip_serializing_if = "is_default")]
    pub combine: Combine,
    /// Whether the prompt goes behind positions and the embeddings' norm.
    #[serde(skip_serializing_if = "is_default")]
    pub after_embeddings: bool,
    /// The number of values that the prompt is decoded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intrinsic_dimension: Option<usize>,
    /// Where the decoder is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<String>,
    /// Whether the prompt is read from a file.
    pub inference_mode: bool,
    /// What HF PEFT notes about the model.
    #[serde(flatten)]
    pub model: ModelDimensions,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prompt_tuning_init: PromptInit::Random,
            prompt_tuning_init_text: None,
            prompt_tuning_init_ids: None,
            tokenizer_name_or_path: None,
            random_uniform_scale: None,
            combine: Combine::Prefix,
            after_embeddings: false,
            intrinsic_dimension: None,
            decoder: None,
            inference_mode: false,
            model: ModelDimensions::default(),
        }
    }
}

/// Names of configurations, a line about each, and the fields in which it differs from the defaults.
///
/// ```
/// use peft_prefix::{PromptTuningConfig, prompt_presets};
/// let (name, _, fields) = prompt_presets().remove(0);
/// let config: PromptTuningConfig = serde_json::from_value(fields)?;
/// assert_eq!((name, config.num_virtual_tokens, config.intrinsic_dimension), ("ipt", 100, Some(250)));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn prompt_presets() -> Vec<(&'static str, &'static str, Value)> {
    let about =
        "a prompt decoded from few numbers, in a subspace of other tasks' (Qin et al. 2021)";
    vec![("ipt", about, json!({ "num_virtual_tokens": 100, "intrinsic_dimension": 250 }))]
}

impl PromptTuningConfig {
    /// Whether the prompt is decoded from few numbers.
    pub(super) fn is_intrinsic(&self) -> bool {
        self.intrinsic_dimension.is_some() || self.decoder.is_some()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl MethodConfig for PromptTuningConfig {
    const NAME: &'static str = "prompt";
    const PEFT_TYPE: &'static str = "PROMPT_TUNING";
    const ABOUT: &'static str = "learned embeddings beside the text (Lester et al. 2021)";
    // A prompt's values are of the order of 1 and get small gradients through a frozen model: the
    // paper trains with 0.3 (Adafactor, which scales its steps), ten to a hundred times the rates
    // of weights. The numbers of a prompt in a subspace start near zero, and have as far to go.
    const LEARNING_RATE: f64 = 1e-2;
    const PROMPT_LEARNING: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("prompt_length", "num_virtual_tokens"),
        ("init", "prompt_tuning_init"),
        ("init_text", "prompt_tuning_init_text"),
        ("init_ids", "prompt_tuning_init_ids"),
        ("tokenizer", "tokenizer_name_or_path"),
        ("uniform_scale", "random_uniform_scale"),
        ("place", "combine"),
        ("after_norm", "after_embeddings"),
        ("dimension", "intrinsic_dimension"),
        ("subspace", "decoder"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "the embeddings",
        trainable: "L d",
        merges: "no",
        formats: "peft, adapters",
    };
    type Method = PromptTuning;

    fn card(&self) -> MethodCard {
        match self.is_intrinsic() {
            true => MethodCard { trainable: "d_I; L d in the file", ..Self::CARD },
            false => Self::CARD,
        }
    }

    /// A plain prompt, which is what is left.
    fn for_file(&self, _base: &Base) -> Result<Self> {
        Ok(Self { intrinsic_dimension: None, decoder: None, ..self.clone() })
    }

    fn to_adapters(&self, _base: &Base) -> Result<Value> {
        adapters_format::write(self)
    }

    fn from_adapters(config: &Map<String, Value>, _base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config)
    }

    fn validate(&self) -> Result<()> {
        at_least_one("num_virtual_tokens", self.num_virtual_tokens)?;
        if let Some(dimension) = self.intrinsic_dimension {
            at_least_one("intrinsic_dimension", dimension)?;
        }
        if self.is_intrinsic() && self.prompt_tuning_init != PromptInit::Random {
            let init = serde_json::to_string(&self.prompt_tuning_init).unwrap_or_default();
            let expected = "must be RANDOM with intrinsic_dimension: the prompt starts where the decoder has it";
            return Err(Error::config("prompt_tuning_init", init, expected));
        }
        let of_text = self.prompt_tuning_init == PromptInit::Text;
        if of_text
            && self.prompt_tuning_init_text.is_none()
            && self.prompt_tuning_init_ids.is_none()
        {
            return Err(Error::config(
                "prompt_tuning_init",
                "\"TEXT\"",
                "needs prompt_tuning_init_text beside it",
            ));
        }
        if self.prompt_tuning_init_ids.as_ref().is_some_and(|ids| ids.is_empty()) {
            return Err(Error::config(
                "prompt_tuning_init_ids",
                "[]",
                "must hold at least one token",
            ));
        }
        if let Some(scale) = self.random_uniform_scale
            && !(scale.is_finite() && scale > 0.0)
        {
            return Err(Error::config("random_uniform_scale", scale, "must be a positive number"));
        }
        self.model.validate()
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        Ok(vec![virtual_tokens(self.num_virtual_tokens, base)?])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<PromptTuning> {
        self.validate()?;
        PromptTuning::new(self, context)
    }
}
