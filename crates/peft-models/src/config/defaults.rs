//! What transformers takes for the fields that a `config.json` leaves out.

use serde_json::{Map, Value, json};

use super::Architecture;

/// Names of the width of hidden states: a file has one of them.
pub(super) const WIDTHS: [&str; 4] = ["hidden_size", "n_embd", "d_model", "dim"];

/// The fields with those that are missing: sizes, indices of tokens, and what else is not the same in
/// every architecture that has the field. The others have defaults where they are read.
pub(super) fn completed(
    architecture: Architecture,
    fields: &Map<String, Value>,
) -> Map<String, Value> {
    let mut all = fields.clone();
    let Value::Object(defaults) = defaults(architecture) else { return all };
    for (field, default) in defaults {
        let is_width = WIDTHS.contains(&field.as_str());
        if !(is_width && WIDTHS.iter().any(|width| fields.contains_key(*width))) {
            all.entry(field).or_insert(default);
        }
    }
    all
}

/// As the configuration classes of transformers 4.57.
fn defaults(architecture: Architecture) -> Value {
    match architecture {
        Architecture::Bert => encoder(30_522, json!({"pad_token_id": 0})),
        Architecture::Roberta => {
            encoder(50_265, json!({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}))
        }
        Architecture::XlmRoberta => {
            encoder(30_522, json!({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}))
        }
        Architecture::DistilBert => json!({"vocab_size": 30_522, "dim": 768, "pad_token_id": 0}),
        Architecture::Gpt2 => json!({
            "vocab_size": 50_257, "n_embd": 768, "bos_token_id": 50_256, "eos_token_id": 50_256,
        }),
        Architecture::Llama => json!({
            "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
            "bos_token_id": 1, "eos_token_id": 2,
        }),
        Architecture::Mistral => json!({
            "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 131_072, "sliding_window": 4096,
            "bos_token_id": 1, "eos_token_id": 2,
        }),
        Architecture::Qwen2 => json!({
            "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "max_position_embeddings": 32_768, "sliding_window": 4096, "max_window_layers": 28,
        }),
        Architecture::T5 => json!({
            "vocab_size": 32_128, "d_model": 512, "pad_token_id": 0, "eos_token_id": 1,
        }),
        Architecture::Bart => json!({
            "vocab_size": 50_265, "d_model": 1024, "bos_token_id": 0, "pad_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
        }),
    }
}

/// The defaults of BERT, with others for a vocabulary.
fn encoder(words: usize, tokens: Value) -> Value {
    let mut fields = json!({
        "vocab_size": words, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
    });
    if let (Value::Object(fields), Value::Object(tokens)) = (&mut fields, tokens) {
        fields.extend(tokens);
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ModelConfig;

    #[test]
    fn every_architecture_has_all_sizes_that_no_file_gives() {
        for architecture in Architecture::ALL {
            let fields = Map::from_iter([("model_type".into(), json!(architecture.name()))]);
            let config = ModelConfig::from_fields(fields, Path::new("config.json"));
            let config = config.unwrap_or_else(|error| panic!("{architecture:?}: {error}"));
            assert!(config.check().is_ok(), "{architecture:?}");
        }
    }

    #[test]
    fn what_a_file_says_stays_and_a_width_has_one_name() {
        let fields = Map::from_iter([
            ("vocab_size".into(), json!(7)),
            ("hidden_size".into(), json!(8)),
            ("pad_token_id".into(), Value::Null),
        ]);
        let all = completed(Architecture::T5, &fields);
        assert_eq!((&all["vocab_size"], &all["pad_token_id"]), (&json!(7), &Value::Null));
        assert_eq!(all["eos_token_id"], json!(1));
        assert!(!all.contains_key("d_model"));
    }
}
