//! How to generate.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{self, switch, token_id};
use crate::{Error, ModelConfig, Result};

/// When a beam search stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum EarlyStopping {
    /// When no running beam can be better than the finished ones, judged by its length so far.
    #[default]
    Likely,
    /// As soon as `num_beams` beams have finished.
    Finished,
    /// When no running beam can become better, at any length.
    Never,
}

impl From<EarlyStopping> for Value {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::Likely => false.into(),
            EarlyStopping::Finished => true.into(),
            EarlyStopping::Never => "never".into(),
        }
    }
}

impl TryFrom<Value> for EarlyStopping {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        match value {
            Value::Bool(false) | Value::Null => Ok(Self::Likely),
            Value::Bool(true) => Ok(Self::Finished),
            // As Python has it.
            Value::Number(ref on) if on.as_f64() == Some(0.0) => Ok(Self::Likely),
            Value::Number(ref on) if on.as_f64() == Some(1.0) => Ok(Self::Finished),
            Value::String(never) if never == "never" => Ok(Self::Never),
            other => Err(format!("early_stopping is {other}, not true, false or \"never\"")),
        }
    }
}

/// How to generate: the supported fields of `generation_config.json`, with transformers' names and
/// defaults, except for `max_new_tokens`.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `max_new_tokens` | 128 (transformers: 20 tokens, the prompt's included) | maximum number of new tokens |
/// | `do_sample` | false | sample the next token; otherwise take the most likely one |
/// | `temperature` | 1 | logits are divided by it before sampling; any where nothing is sampled |
/// | `top_k` | 50 | sample from the k most likely tokens; 0, or -1 as some files have it: from all |
/// | `top_p` | 1 | sample from the most likely tokens that together have this probability |
/// | `repetition_penalty` | 1 | logits of tokens that have occurred are divided by it (negative ones multiplied) |
/// | `no_repeat_ngram_size` | 0 | no sequence of n tokens occurs twice; 0: any may |
/// | `num_beams` | 1 | number of beams; not with `do_sample` |
/// | `length_penalty` | 1 | a finished beam's score is divided by its length to this power |
/// | `early_stopping` | false | see [`EarlyStopping`] |
/// | `eos_token_id` | the model's | tokens that end a text |
/// | `pad_token_id` | the model's | pads shorter prompts |
/// | `bos_token_id` | the model's | stands for an empty prompt |
/// | `forced_bos_token_id`, `forced_eos_token_id` | the model's | the first token of a decoder's text, and the last one at the maximum length |
/// | `decoder_start_token_id` | the model's | the first token of the decoder |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// Whether tokens are drawn.
    #[serde(deserialize_with = "switch")]
    pub do_sample: bool,
    /// What scores are divided by.
    pub temperature: f64,
    /// From how many tokens to draw; 0: from all.
    #[serde(deserialize_with = "count")]
    pub top_k: usize,
    /// From which share of the probability to draw.
    pub top_p: f64,
    /// The penalty on tokens that were there.
    pub repetition_penalty: f64,
    /// The length of sequences that come only once; 0: none.
    #[serde(deserialize_with = "count")]
    pub no_repeat_ngram_size: usize,
    /// The beams.
    pub num_beams: usize,
    /// The power of the length.
    pub length_penalty: f64,
    /// When a beam search stops.
    pub early_stopping: EarlyStopping,
    /// Tokens that end a text.
    #[serde(deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// What shorter prompts are filled up with.
    #[serde(deserialize_with = "token_id")]
    pub pad_token_id: Option<u32>,
    /// What stands for a prompt without tokens.
    #[serde(deserialize_with = "token_id")]
    pub bos_token_id: Option<u32>,
    /// The first token of a decoder's text.
    #[serde(deserialize_with = "token_id")]
    pub forced_bos_token_id: Option<u32>,
    /// The last token of a text that comes to its longest.
    #[serde(deserialize_with = "only_one")]
    pub forced_eos_token_id: Option<u32>,
    /// What a decoder's text begins with.
    #[serde(deserialize_with = "token_id")]
    pub decoder_start_token_id: Option<u32>,
    /// The seed of what is drawn.
    pub seed: u64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Likely,
            eos_token_id: Vec::new(),
            pad_token_id: None,
            bos_token_id: None,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            decoder_start_token_id: None,
            seed: 0,
        }
    }
}

/// Fields that would change what is generated and that are not followed, with the values at which
/// they change nothing.
const NOT_FOLLOWED: &[(&str, &[&str])] = &[
    ("max_length", &["20"]),
    ("min_length", &["0"]),
    ("min_new_tokens", &["0"]),
    ("bad_words_ids", &[]),
    ("suppress_tokens", &["[]"]),
    ("begin_suppress_tokens", &["[]"]),
    ("num_beam_groups", &["1"]),
    ("diversity_penalty", &["0.0"]),
    ("penalty_alpha", &[]),
    ("encoder_no_repeat_ngram_size", &["0"]),
    ("encoder_repetition_penalty", &["1.0", "1"]),
    ("exponential_decay_length_penalty", &[]),
    ("sequence_bias", &[]),
    ("guidance_scale", &["1.0", "1"]),
    ("renormalize_logits", &["false"]),
    ("watermarking_config", &[]),
    ("stop_strings", &["[]"]),
    ("force_words_ids", &[]),
    ("forced_decoder_ids", &["[]"]),
    ("num_return_sequences", &["1"]),
    ("typical_p", &["1.0"]),
    ("min_p", &[]),
];

/// The most beams: each is a row of the batch, with scores of all tokens.
const MOST_BEAMS: usize = 1024;

impl GenerationConfig {
    /// The `generation_config.json` of a model's directory; where there is none, what the model's
    /// own configuration says.
    ///
    /// # Errors
    /// If the file cannot be read or is broken, or a value makes no sense.
    pub fn load(directory: &Path, model: &ModelConfig) -> Result<Self> {
        let path = directory.join("generation_config.json");
        let mut fields: Map<String, Value> = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?,
            Err(e) if e.kind() == ErrorKind::NotFound => model.fields().clone(),
            Err(e) => return Err(Error::file(&path, e)),
        };
        fields.retain(|_, value| !value.is_null());
        for (field, inert) in NOT_FOLLOWED {
            if let Some(value) = fields.get(*field).map(ToString::to_string)
                && !inert.contains(&value.as_str())
            {
                tracing::warn!("{field} = {value} is ignored in generation");
            }
        }
        let mut config: Self = config::read(&fields, &path)?;
        if config.eos_token_id.is_empty() {
            config.eos_token_id = model.eos_token_id().into_iter().collect();
        }
        config.bos_token_id = config.bos_token_id.or(model.bos_token_id());
        config.decoder_start_token_id =
            config.decoder_start_token_id.or(model.decoder_start_token_id());
        Ok(config)
    }

    /// The same with some fields set otherwise, by their names in the file.
    ///
    /// # Errors
    /// If a value is of another kind.
    pub fn with_fields(&self, fields: &Map<String, Value>) -> Result<Self> {
        let mut all = serde_json::to_value(self).unwrap_or_default();
        if let Some(all) = all.as_object_mut() {
            all.extend(fields.clone());
        }
        serde_json::from_value(all).map_err(|e| Error::Input(format!("generation: {e}")))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// Naming the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, value: &dyn ToString, expected: &str| {
            Err(Error::Input(format!("{field} = {}: {expected}", value.to_string())))
        };
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        // Whatever stands there counts only where something is drawn.
        if self.do_sample && !is_positive(self.temperature) {
            return wrong("temperature", &self.temperature, "must be a positive number");
        }
        if self.do_sample && !(0.0..=1.0).contains(&self.top_p) {
            return wrong("top_p", &self.top_p, "is a probability, 0 to 1");
        }
        // What scores are divided by, which are f32.
        if !is_positive(f64::from(self.repetition_penalty as f32)) {
            let penalty = self.repetition_penalty;
            return wrong("repetition_penalty", &penalty, "must be a positive number");
        }
        if self.num_beams > 1 && !(self.length_penalty as f32).is_finite() {
            return wrong(
                "length_penalty",
                &format!("{:?}", self.length_penalty),
                "must be a number",
            );
        }
        if self.num_beams > MOST_BEAMS {
            return wrong("num_beams", &self.num_beams, &format!("at most {MOST_BEAMS}"));
        }
        if self.num_beams == 0 || self.max_new_tokens == 0 {
            let field = if self.num_beams == 0 { "num_beams" } else { "max_new_tokens" };
            return wrong(field, &0, "must be at least 1");
        }
        if self.num_beams > 1 && self.do_sample {
            return wrong("do_sample", &true, "not with beams, which are the likeliest");
        }
        Ok(())
    }

    /// Refuses to feed a model a token that is none of its `words`; `pad` is what prompts are filled
    /// up with.
    pub(super) fn check_tokens(
        &self,
        pad: usize,
        words: usize,
        beside_encoder: bool,
    ) -> Result<()> {
        let ids = [
            ("forced_eos_token_id", self.forced_eos_token_id),
            // Of no use without an encoder.
            ("forced_bos_token_id", self.forced_bos_token_id.filter(|_| beside_encoder)),
            ("decoder_start_token_id", self.decoder_start_token_id.filter(|_| beside_encoder)),
        ];
        let ids = ids.into_iter().filter_map(|(field, id)| Some((field, id? as usize)));
        if let Some((field, id)) = ids.chain([("pad_token_id", pad)]).find(|&(_, id)| id >= words) {
            let expected = format!("the model's {words} tokens have indices below {words}");
            return Err(Error::Input(format!("{field} = {id}: {expected}")));
        }
        // Harmless, and common in small models for tests: a text only never ends with it.
        if let Some(id) = self.eos_token_id.iter().find(|id| **id as usize >= words) {
            tracing::warn!("eos_token_id = {id} never occurs: the model has {words} tokens");
        }
        Ok(())
    }
}

/// The index of a token, or a list of no other.
fn only_one<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<u32>, D::Error> {
    let ids = Option::<OneOrMany>::deserialize(deserializer)?.map_or(Ok(Vec::new()), ids::<D>)?;
    match ids[..] {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        _ => Err(D::Error::custom("more than one is not supported")),
    }
}

/// A number of tokens; a negative one is as 0.
fn count<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<usize, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    match (number.as_u64().map(usize::try_from), number.as_i64()) {
        (Some(Ok(count)), _) => Ok(count),
        (None, Some(_)) => Ok(0),
        _ => Err(D::Error::custom(format!("{number} is no number of tokens"))),
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<u32>, D::Error> {
    ids::<D>(OneOrMany::deserialize(deserializer)?)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

fn ids<'de, D: serde::Deserializer<'de>>(
    found: OneOrMany,
) -> std::result::Result<Vec<u32>, D::Error> {
    let ids = match found {
        OneOrMany::One(id) => vec![id],
        OneOrMany::Many(ids) => ids,
    };
    let ids = ids.into_iter().filter_map(|id| config::id(id).transpose());
    ids.collect::<std::result::Result<_, _>>().map_err(D::Error::custom)
}
