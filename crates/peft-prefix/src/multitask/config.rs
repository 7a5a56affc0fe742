//! The configuration of multitask prompt tuning, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Size,
};
use serde::{Deserialize, Serialize};

use super::MultitaskPrompt;
use crate::model::{ModelDimensions, at_least_one, embeddings, or_default, virtual_tokens};
use crate::prompt::{PromptInit, PromptTuningConfig};

/// What a shared prompt starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MultitaskInit {
    /// Values from `N(0, 1)`.
    #[default]
    Random,
    /// The embeddings of a text's tokens, repeated or cut to the prompt's length.
    Text,
    /// In HF PEFT: the mean over the tasks of another adapter's file. A file that says so is read; a new
    /// adapter does not start so here.
    AverageSourceTasks,
    /// In HF PEFT: one task of another adapter's file; the same.
    ExactSourceTask,
    /// In HF PEFT: the shared prompt of another adapter's file; the same.
    OnlySourceShared,
}

/// Configuration of [`MultitaskPrompt`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `num_virtual_tokens` (`prompt_length`) | 20 | length `L` of the prompt |
/// | `num_tasks` | 1 | the tasks that share it |
/// | `num_ranks` | 1 | rank of what a task multiplies it with |
/// | `prompt_tuning_init` (`init`) | `RANDOM` | see [`MultitaskInit`] |
/// | `prompt_tuning_init_text` (`init_text`) | none | the text of `TEXT` |
/// | `prompt_tuning_init_state_dict_path`, `prompt_tuning_init_task` | none, 0 | for PEFT: what it started from |
/// | `tokenizer_name_or_path` (`tokenizer`) | none | HF PEFT's tokenizer for that text; carried |
/// | `inference_mode` | false | true in files: the prompt is there, and needs no start |
/// | `num_layers`, `token_dim`, ... | | see [`ModelDimensions`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultitaskPromptConfig {
    /// The length of the prompt.
    pub num_virtual_tokens: usize,
    /// The tasks that share it.
    pub num_tasks: usize,
    /// The rank of what a task multiplies it with.
    pub num_ranks: usize,
    /// What the shared prompt starts from.
    #[serde(deserialize_with = "or_default")]
    pub prompt_tuning_init: MultitaskInit,
    /// The text that it starts from.
    pub prompt_tuning_init_text: Option<String>,
    /// The file that HF PEFT started from.
    pub prompt_tuning_init_state_dict_path: Option<String>,
    /// The task of that file.
    pub prompt_tuning_init_task: Option<usize>,
    /// The tokenizer that HF PEFT reads the text with.
    pub tokenizer_name_or_path: Option<String>,
    /// Whether the prompt is read from a file.
    pub inference_mode: bool,
    /// What HF PEFT notes about the model.
    #[serde(flatten)]
    pub model: ModelDimensions,
}

impl Default for MultitaskPromptConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            num_tasks: 1,
            num_ranks: 1,
            prompt_tuning_init: MultitaskInit::Random,
            prompt_tuning_init_text: None,
            prompt_tuning_init_state_dict_path: None,
            prompt_tuning_init_task: Some(0),
            tokenizer_name_or_path: None,
            inference_mode: false,
            model: ModelDimensions::default(),
        }
    }
}

impl MultitaskPromptConfig {
    /// The configuration of the shared prompt alone.
    ///
    /// # Errors
    /// If it starts from a file.
    pub(super) fn shared(&self) -> Result<PromptTuningConfig> {
        let init = match (self.prompt_tuning_init, self.inference_mode) {
            (MultitaskInit::Text, _) => PromptInit::Text,
            (MultitaskInit::Random, _) | (_, true) => PromptInit::Random,
            (other, false) => {
                let other = serde_json::to_string(&other).unwrap_or_default();
                let expected =
                    "names the file of another adapter: read that adapter and train it on";
                return Err(Error::config("prompt_tuning_init", other, expected));
            }
        };
        Ok(PromptTuningConfig {
            num_virtual_tokens: self.num_virtual_tokens,
            prompt_tuning_init: init,
            prompt_tuning_init_text: self.prompt_tuning_init_text.clone(),
            tokenizer_name_or_path: self.tokenizer_name_or_path.clone(),
            inference_mode: self.inference_mode,
            model: self.model.clone(),
            ..PromptTuningConfig::default()
        })
    }
}

impl MethodConfig for MultitaskPromptConfig {
    const NAME: &'static str = "multitask-prompt";
    const PEFT_TYPE: &'static str = "MULTITASK_PROMPT_TUNING";
    const ABOUT: &'static str =
        "a prompt that tasks share, times a matrix of each (Wang et al. 2023)";
    // That of prompt tuning.
    const LEARNING_RATE: f64 = 1e-2;
    const PROMPT_LEARNING: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("prompt_length", "num_virtual_tokens"),
        ("init", "prompt_tuning_init"),
        ("init_text", "prompt_tuning_init_text"),
        ("tokenizer", "tokenizer_name_or_path"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "the embeddings",
        trainable: "L d, and r (L + d) of each task",
        merges: "no",
        formats: "peft",
    };
    type Method = MultitaskPrompt;

    fn validate(&self) -> Result<()> {
        at_least_one("num_tasks", self.num_tasks)?;
        at_least_one("num_ranks", self.num_ranks)?;
        self.shared()?.validate()
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let d = embeddings(base, "a prompt")?.d_out() as f64;
        let of_task = self.num_ranks as f64 * (self.num_virtual_tokens as f64 + d);
        let tasks = Size::new("num_tasks", self.num_tasks, self.num_tasks as f64 * of_task);
        Ok(vec![virtual_tokens(self.num_virtual_tokens, base)?, tasks])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<MultitaskPrompt> {
        self.validate()?;
        MultitaskPrompt::new(self, context)
    }
}
