//! The text that prompt tuning starts from.

use peft::core::MethodConfig;
use peft::models::TextTokenizer;
use peft::prefix::PromptTuningConfig;
use peft::train::ResolvedModel;
use serde_json::{Map, Value, json};

/// What a prompt starts from, unless the settings say otherwise. A text begins with the model's own
/// first token, whose place a head reads: with random values there, the head would have to begin
/// with a state that says nothing of the text.
const START: &str = "Classify the text.";

/// Fills in what a new prompt starts from: a text, as the token indices that the method needs.
pub fn start(
    method: &str,
    fields: &mut Map<String, Value>,
    resolved: &ResolvedModel,
) -> anyhow::Result<()> {
    let is_set = |field: &str| fields.contains_key(field);
    let own = ["prompt_tuning_init", "init", "random_uniform_scale", "uniform_scale"];
    if method == PromptTuningConfig::NAME && !own.into_iter().any(is_set) {
        fields.insert("prompt_tuning_init".into(), "TEXT".into());
        fields.entry("prompt_tuning_init_text").or_insert(START.into());
    }
    let is_text = fields.get("prompt_tuning_init").and_then(Value::as_str) == Some("TEXT");
    let text = fields.get("prompt_tuning_init_text").and_then(Value::as_str);
    if let (true, Some(text)) = (is_text, text) {
        let text = text.to_string();
        let tokenizer = TextTokenizer::load(&resolved.directory, usize::MAX)?;
        let encoded = tokenizer.encode(&[(text, None)])?;
        fields.insert("prompt_tuning_init_ids".into(), json!(encoded[0].ids));
        // HF PEFT refuses a configuration without it.
        fields.entry("tokenizer_name_or_path").or_insert(json!(resolved.name));
    }
    Ok(())
}
