//! Configurations that ask for something unsupported, and inputs that do not fit.

use burn::tensor::{Device, TensorData};
use peft_core::TensorMap;
use peft_models::{Checkpoint, Model, ModelConfig, ModelInput, ModelTask, Task};
use serde_json::{Value, json};

const LLAMA: &str = r#"{"hidden_size": 8, "vocab_size": 11, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16}"#;

/// What loading says of a configuration; nothing in it needs a tensor to be found out.
fn error(model_type: &str, task: Task, fields: Value) -> String {
    let Ok(Value::Object(mut all)) = serde_json::from_str(LLAMA) else { panic!("an object") };
    all.insert("model_type".into(), model_type.into());
    all.extend(fields.as_object().cloned().unwrap_or_default());
    let config = ModelConfig::from_fields(all, "config.json".as_ref()).expect("a known model");
    let mut checkpoint = Checkpoint::from_tensors("none", TensorMap::new());
    let task = ModelTask { task, seed: 0 };
    let loaded = Model::from_checkpoint(config, &mut checkpoint, task, &Device::default());
    loaded.map(|_| ()).expect_err("there are no tensors").to_string()
}

#[test]
fn a_field_that_asks_for_something_unsupported_is_named() {
    let lm = Task::CausalLm;
    for (model, fields, expected) in [
        ("mistral", json!({"sliding_window": 8}), "sliding_window = 8"),
        ("qwen2", json!({"sliding_window": 8, "use_sliding_window": true}), "sliding_window = 8"),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}),
            "rope_scaling",
        ),
        ("llama", json!({"rope_scaling": {"type": "linear"}}), "missing field `factor`"),
        ("llama", json!({"num_key_value_heads": 3}), "num_key_value_heads = 3"),
        ("llama", json!({"num_attention_heads": 3}), "num_attention_heads = 3"),
        ("llama", json!({"head_dim": 3}), "head_dim = 3"),
        ("llama", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor = 0.5"),
        ("llama", json!({"hidden_act": "swiglu"}), "hidden_act = \"swiglu\""),
        ("gpt2", json!({"add_cross_attention": true}), "add_cross_attention = true"),
        ("gpt2", json!({"n_head": 3}), "n_head = 3"),
    ] {
        let error = error(model, lm, fields);
        assert!(error.contains(expected), "{model}: {error}");
        assert!(error.contains("config.json"), "{error}");
    }
    let seq2seq = Task::Seq2SeqLm;
    let error_of = |model, fields| error(model, seq2seq, fields);
    let gate = json!({"feed_forward_proj": "gated-glu"});
    assert!(error_of("t5", gate).contains("feed_forward_proj = \"gated-glu\""));
    let untied = json!({"tie_word_embeddings": false});
    assert!(error_of("bart", untied).contains("tie_word_embeddings = false"));
    // A window as long as the model, or one that is switched off, is none.
    for (model, fields) in [
        ("mistral", json!({"sliding_window": 16})),
        ("qwen2", json!({"sliding_window": 8, "use_sliding_window": false})),
    ] {
        let error = error(model, lm, fields);
        assert!(error.contains("the checkpoint lacks"), "{error}");
    }
}

#[test]
fn a_task_that_an_architecture_lacks_is_named() {
    let error = error("bart", Task::ClassifyTokens { labels: 2 }, json!({}));
    assert!(error.contains("BartForTokenClassification"), "{error}");
    assert!(error.contains("BartForConditionalGeneration"), "{error}");
}

#[test]
fn a_decoder_has_as_many_texts_as_the_encoder() {
    let device = Device::default();
    let input = |rows: usize| {
        let ids = TensorData::new(vec![1i64; 2 * rows], [rows, 2]);
        ModelInput::from_data(ids, None, None, &device).expect("a batch")
    };
    let error = input(2).with_decoder(input(3)).expect_err("two and three").to_string();
    assert_eq!(error, "input: 2 texts, and 3 for the decoder");
    assert!(input(2).with_decoder(input(2)).is_ok());
    let none = TensorData::new(Vec::<i64>::new(), [2, 0]);
    assert!(ModelInput::from_data(none, None, None, &device).is_err());
}
