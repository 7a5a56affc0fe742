//! The configuration of prompt tuning as adapter-hub/adapters writes it.

use peft_core::{Error, Result, with_adapters_defaults};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Combine, PromptInit, PromptTuningConfig};

/// The bound of its uniform values; not a field of its files.
const UNIFORM_SCALE: f64 = 0.5;

/// Its `PromptTuningConfig`.
#[derive(Debug, Deserialize)]
struct AdaptersPrompt {
    prompt_length: usize,
    prompt_init: String,
    prompt_init_text: Option<String>,
    combine: Combine,
}

/// What `config` says in that library's terms.
pub(super) fn write(config: &PromptTuningConfig) -> Result<Value> {
    if !config.after_embeddings {
        return Err(Error::no_format(
            "prompt",
            "adapter-hub/adapters",
            "it puts the prompt behind the embeddings' norm: train with after_embeddings = true",
        ));
    }
    let text = config.prompt_tuning_init == PromptInit::Text;
    Ok(json!({
        "architecture": "prompt_tuning",
        "combine": config.combine,
        "init_weights_seed": null,
        "prompt_init": if text { "from_string" } else { "random_uniform" },
        "prompt_init_text": if text { config.prompt_tuning_init_text.as_deref() } else { None },
        "prompt_length": config.num_virtual_tokens,
    }))
}

/// What that library's `config` says in ours; `None` where it is not of prompt tuning.
pub(super) fn read(config: &Map<String, Value>) -> Option<Result<PromptTuningConfig>> {
    let architecture = config.get("architecture").and_then(Value::as_str);
    (architecture == Some("prompt_tuning")).then(|| {
        let defaults = json!({
            "prompt_length": 10, "prompt_init": "random_uniform", "combine": "prefix",
        });
        let theirs: AdaptersPrompt =
            serde_json::from_value(with_adapters_defaults(config, defaults)).map_err(|error| {
                Error::config("config", "PromptTuningConfig", error.to_string())
            })?;
        let init = match theirs.prompt_init.as_str() {
            "random_uniform" => PromptInit::Random,
            "from_string" => PromptInit::Text,
            other => {
                let expected = "must be random_uniform or from_string";
                return Err(Error::config("prompt_init", other, expected));
            }
        };
        Ok(PromptTuningConfig {
            num_virtual_tokens: theirs.prompt_length,
            prompt_tuning_init: init,
            prompt_tuning_init_text: theirs.prompt_init_text,
            random_uniform_scale: (init == PromptInit::Random).then_some(UNIFORM_SCALE),
            combine: theirs.combine,
            after_embeddings: true,
            inference_mode: true,
            ..PromptTuningConfig::default()
        })
    })
}
