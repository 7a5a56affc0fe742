//! The text that prompt tuning starts from.

use peft::core::MethodConfig;
use peft::data::Goal;
use peft::prefix::PromptTuningConfig;
use serde_json::{Map, Value};

/// Fills in the initial text of a new prompt, unless the settings give one: an instruction.
///
/// A text begins with the model's own first token, whose place a head reads: with random values
/// there, the head would have to begin with a state that says nothing of the text.
pub fn start(method: &str, fields: &mut Map<String, Value>, goal: Goal, tokenizer: &str) {
    let value = |names: [&str; 2]| names.into_iter().find_map(|name| fields.get(name));
    let is_text = match value(["prompt_tuning_init", "init"]) {
        Some(init) => init == "TEXT",
        None => value(["random_uniform_scale", "uniform_scale"]).is_none(),
    };
    if method != PromptTuningConfig::NAME || !is_text {
        return;
    }
    let text = ["prompt_tuning_init_text", "init_text", "prompt_tuning_init_ids", "init_ids"];
    let defaults: [(&[&str], &str); 3] = [
        (&["prompt_tuning_init", "init"], "TEXT"),
        (&text, task(goal)),
        // HF PEFT refuses a text without it.
        (&["tokenizer_name_or_path", "tokenizer"], tokenizer),
    ];
    for (names, value) in defaults {
        if !names.iter().any(|name| fields.contains_key(*name)) {
            fields.insert(names[0].into(), value.into());
        }
    }
}

fn task(goal: Goal) -> &'static str {
    match goal {
        Goal::Classify => "Classify the text.",
        Goal::MultiLabel => "Label the text.",
        Goal::Regress => "Score the text.",
        Goal::Tag => "Label the words.",
        Goal::QuestionAnswering => "Answer the question.",
        Goal::MaskedLm => "Fill in the words.",
        Goal::CausalLm => "Continue the text.",
        Goal::Seq2Seq => "Rewrite the text.",
    }
}
