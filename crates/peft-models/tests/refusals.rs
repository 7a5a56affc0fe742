//! Configurations that ask for something unsupported, and inputs that do not fit.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use peft_core::TensorMap;
use peft_models::{Checkpoint, Model, ModelConfig, ModelInput, ModelTask, Task, config_fields};
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
        (
            "qwen2",
            json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 0}),
            "sliding_window = 8",
        ),
        ("qwen2", json!({"layer_types": ["sliding_attention"]}), "layer_types = ["),
        ("qwen2", json!({"layer_types": ["full_attention", "x"]}), "layer_types = ["),
        ("qwen2", json!({"layer_types": []}), "layer_types = []"),
        ("qwen2", json!({"layer_types": "full_attention"}), "layer_types = "),
        ("mistral", json!({"layer_types": ["x"]}), "layer_types = ["),
        ("mistral", json!({"layer_types": ["sliding_attention"], "sliding_window": 8}), "window"),
        ("llama", json!({"layer_types": ["sliding_attention"]}), "layer_types = ["),
        ("llama", json!({"rope_theta": 0}), "rope_theta = 0"),
        ("llama", json!({"rope_theta": -1.5}), "rope_theta = -1.5"),
        (
            "llama",
            json!({"rope_theta": 1, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
            "rope_theta = 1 ",
        ),
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
        ("mistral", json!({"sliding_window": 8, "layer_types": ["full_attention"]})),
        // From the layer on that is behind the last.
        ("qwen2", json!({"sliding_window": 8, "use_sliding_window": true})),
        ("qwen2", json!({"layer_types": ["full_attention"], "use_sliding_window": true})),
    ] {
        let error = error(model, lm, fields);
        assert!(error.contains("the checkpoint lacks"), "{error}");
    }
}

/// What loading says of a tiny base with other fields.
fn loaded(base: &str, fields: &Value, without: &[&str]) -> Result<Model, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases");
    let mut all = config_fields(&directory.join(base)).expect("a configuration");
    all.extend(fields.as_object().expect("an object").clone());
    without.iter().for_each(|field| drop(all.remove(*field)));
    let copy = tempfile::tempdir().expect("a directory");
    let path = copy.path();
    std::fs::write(path.join("config.json"), Value::Object(all).to_string()).expect("written");
    let tensors = directory.join(base).join("model.safetensors");
    std::fs::copy(tensors, path.join("model.safetensors")).expect("copied");
    let loaded = Model::load(path, None, &Device::default());
    loaded.map(|(model, _)| model).map_err(|e| e.to_string())
}

#[test]
fn what_transformers_refuses_is_refused_with_the_field() {
    let bits = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    let not_objects = [json!("linear"), json!([]), json!(1), json!(false), json!("")];
    let mut refused = vec![
        ("bert", json!({"id2label": ["a", "b", "c"]}), "id2label"),
        ("bert", json!({"id2label": {"a": "x", "b": "y", "c": "z"}}), "id2label"),
        ("bert", json!({"id2label": {"0": "x", "1": "y"}}), "id2label"),
        ("bert", json!({"id2label": {"0": "x", "1": "y", "2": "z", "3": "w"}}), "id2label"),
        ("bert-token", json!({"id2label": {"0": "x"}}), "id2label"),
        ("bart-sequence", json!({"id2label": {"0": "x"}}), "id2label"),
        ("gpt2-sequence", json!({"id2label": {"0": "x"}}), "id2label"),
        ("bert", json!({"layer_norm_eps": "1e-5"}), "layer_norm_eps"),
        ("bert", json!({"layer_norm_eps": -1e-12}), "layer_norm_eps"),
        ("gpt2-left", json!({"layer_norm_epsilon": -1}), "layer_norm_epsilon"),
        ("t5-left", json!({"layer_norm_epsilon": -1e-6}), "layer_norm_epsilon"),
        ("mistral", json!({"rms_norm_eps": -1e-6}), "rms_norm_eps"),
        ("mistral", json!({"rms_norm_eps": 1e300}), "rms_norm_eps"),
        ("mistral", json!({"sliding_window": -1}), "sliding_window"),
        ("mistral", json!({"sliding_window": 2.5}), "sliding_window"),
        ("mistral", json!({"sliding_window": "x"}), "sliding_window"),
        ("llama-linear", json!({"sliding_window": -1}), "sliding_window"),
        ("bert", json!({"hidden_dropout_prob": 1.5}), "hidden_dropout_prob"),
        ("bert", json!({"classifier_dropout": -0.1}), "classifier_dropout"),
        ("gpt2-left", json!({"attn_pdrop": -0.1}), "attn_pdrop"),
        ("bart-left", json!({"activation_dropout": 2}), "activation_dropout"),
        ("bert", json!({"hidden_size": "32"}), "hidden_size"),
        ("bert", json!({"hidden_size": 12.5}), "hidden_size"),
        ("bert", json!({"num_hidden_layers": -1}), "num_hidden_layers"),
        ("llama-linear", json!({"rope_theta": "x"}), "rope_theta"),
        ("bert", json!({"pad_token_id": 1_000_000}), "pad_token_id"),
        ("mistral", json!({"pad_token_id": 1u64 << 31}), "pad_token_id"),
        ("roberta", json!({"pad_token_id": u64::MAX}), "pad_token_id"),
        ("bert", json!({"pad_token_id": "0"}), "pad_token_id"),
        ("t5-left", json!({"decoder_start_token_id": 1u64 << 32}), "decoder_start_token_id"),
        ("bert", json!({"architectures": ["LlamaForCausalLM"]}), "architectures"),
        ("bert", json!({"architectures": ["RobertaForSequenceClassification"]}), "architectures"),
        ("bert", json!({"architectures": ["DistilBertModel"]}), "architectures"),
        ("mistral", json!({"architectures": ["GemmaForCausalLM"]}), "architectures"),
        ("bert", json!({"architectures": "BertModel"}), "architectures"),
        ("bert", json!({"dtype": "auto"}), "dtype"),
        ("bert", json!({"dtype": "torch.float16"}), "dtype"),
        ("bert", json!({"dtype": 16}), "dtype"),
        ("bert", json!({"label2id": []}), "label2id"),
        ("gpt2-left", json!({"initializer_range": -1}), "initializer_range"),
        ("bert", json!({"num_labels": 2.5}), "num_labels"),
        ("bert", json!({"num_labels": 0, "id2label": null}), "num_labels"),
        ("bert-mlm", json!({"problem_type": "ranking"}), "problem_type"),
        ("bert-qa", json!({"num_labels": 3}), "num_labels = 3"),
        ("bert-qa", json!({"id2label": {"0": "x"}}), "id2label"),
        ("bert", json!({"position_embedding_type": null}), "position_embedding_type"),
        ("bert", json!({"is_decoder": "false"}), "is_decoder"),
        ("bert", json!({"pruned_heads": {"0": [1]}}), "pruned_heads"),
        ("roberta", json!({"pad_token_id": null}), "pad_token_id"),
        ("mistral", json!({"pad_token_id": -100}), "pad_token_id = -100"),
        ("t5-left", json!({"dense_act_fn": null}), "dense_act_fn"),
        ("t5-left", json!({"feed_forward_proj": "gated-gelu-x"}), "feed_forward_proj"),
        ("t5-left", json!({"is_gated_act": "x"}), "is_gated_act"),
        ("bart-left", json!({"normalize_before": 1}), "normalize_before"),
        ("mistral", json!({"quantization_config": bits}), "quantization_config = bitsandbytes"),
        ("mistral", json!({"quantization_config": {"load_in_8bit": true}}), "= bitsandbytes"),
        ("bert", json!({"quantization_config": {"quant_method": "gptq"}}), "= gptq"),
        ("bert", json!({"quantization_config": {"bits": 4}}), "quantization_config = {"),
        ("llama-linear", json!({"rope_scaling": {}}), "rope_scaling"),
        ("llama-linear", json!({"rope_scaling": {"rope_type": null}}), "rope_scaling"),
        ("llama-linear", json!({"rope_scaling": {"type": "linear", "factor": 0}}), "rope_scaling"),
        ("llama-linear", json!({"rope_scaling": {"type": "linear", "factor": "2"}}), "factor"),
    ];
    refused.extend(
        not_objects.map(|it| ("llama-linear", json!({"rope_scaling": it}), "rope_scaling")),
    );
    for (base, fields, named) in refused {
        let error = loaded(base, &fields, &[]).expect_err(&fields.to_string());
        assert!(error.contains(named) && error.contains("config.json"), "{base} {fields}: {error}");
    }
}

#[test]
fn what_transformers_takes_is_taken() {
    let off = json!({"quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false});
    for (base, fields) in [
        ("bert", json!({"id2label": {"0": 0, "1": 1.5, "2": true}})),
        ("bert", json!({"id2label": {"0": null, "01": "x", "2": "y"}})),
        ("bert", json!({"layer_norm_eps": 0})),
        ("bert", json!({"hidden_dropout_prob": 1})),
        ("bert", json!({"pad_token_id": -1})),
        ("roberta", json!({"pad_token_id": -1})),
        ("mistral", json!({"pad_token_id": -2})),
        ("gpt2-left", json!({"pad_token_id": 1_000_000})),
        ("mistral", json!({"sliding_window": null})),
        ("mistral", json!({"tie_word_embeddings": 0})),
        ("llama-linear", json!({"attention_bias": null})),
        ("llama-linear", json!({"sliding_window": 3})),
        ("llama-linear", json!({"rope_scaling": {"type": "default"}})),
        ("roberta", json!({"architectures": ["XLMRobertaForSequenceClassification"]})),
        ("bert", json!({"architectures": ["MyOwnClassifier"]})),
        ("bert", json!({"hidden_act": "gelu_python", "initializer_range": null})),
        ("bert", json!({"is_decoder": 0, "pruned_heads": {}})),
        ("bert", json!({"id2label": {" 0": "x", "-1": "y", "+1": "z"}})),
        ("bert", json!({"dtype": "bfloat16", "torch_dtype": "auto"})),
        ("mistral", json!({"attention_dropout": null})),
        ("bart-left", json!({"dropout": null, "init_std": null, "add_final_layer_norm": 0})),
        ("bert", json!({"architectures": []})),
        ("bert", json!({"quantization_config": off})),
        ("gpt2-left", json!({"hidden_size": 16})),
    ] {
        let loaded = loaded(base, &fields, &[]);
        assert!(loaded.is_ok(), "{base} {fields}: {loaded:?}");
    }
    let model = loaded("bert", &json!({"id2label": {"0": 0, "1": null, "2": "z"}}), &[]);
    assert_eq!(model.expect("three labels").config().labels(), ["0", "LABEL_1", "z"]);
}

#[test]
fn a_configuration_with_any_other_value_is_an_error_or_a_model() {
    let others = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(1),
        json!(1u64 << 31),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!("x"),
        json!([]),
        json!([1]),
        json!({"a": 1}),
        json!(true),
    ];
    let device = Device::default();
    for base in
        ["bert", "roberta", "distilbert-mlm", "gpt2-left", "llama-yarn", "t5-left", "bart-sequence"]
    {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases");
        let fields = config_fields(&directory.join(base)).expect("a configuration");
        for field in fields.keys() {
            for other in &others {
                let Ok(model) = loaded(base, &json!({ field.as_str(): other }), &[]) else {
                    continue;
                };
                let input = ModelInput::from_rows(&[&[1, 5, 2], &[2]], None, 0, &device);
                let input = input.expect("two texts");
                let input = match model.task() {
                    Task::Seq2SeqLm => input.clone().with_decoder(input).expect("as many"),
                    _ => input,
                };
                // Whatever comes of it, nothing panics.
                let _ = model.infer(&input, &());
            }
        }
    }
}

#[test]
fn a_checkpoint_without_a_class_is_read_by_its_head() {
    for base in [
        "bert",
        "bert-mlm",
        "bert-qa",
        "bert-token",
        "roberta",
        "roberta-mlm",
        "distilbert-sequence",
        "distilbert-token",
        "distilbert-mlm",
        "gpt2-left",
        "gpt2-sequence",
        "gpt2-token",
        "mistral",
        "llama-sequence",
        "llama-token",
        "t5-left",
        "t5-sequence",
        "t5-token",
        "bart-left",
        "bart-sequence",
    ] {
        let task = |fields, without| loaded(base, &fields, without).map(|model| model.task());
        let own = task(json!({}), &[]);
        assert_eq!(own, task(json!({}), &["architectures"]), "{base}");
        // Somebody's own class says nothing.
        assert_eq!(own, task(json!({"architectures": ["MyOwnClassifier"]}), &[]), "{base}");
    }
    let two = json!({"id2label": {"0": "x", "1": "y"}});
    let error = loaded("bert", &two, &["architectures"]).expect_err("the head has three rows");
    assert!(error.contains("id2label"), "{error}");
}

/// What a model computes of two texts.
fn outputs(model: &Model) -> Vec<f32> {
    let device = Device::default();
    let input = ModelInput::from_rows(&[&[5, 9, 2, 1], &[6, 7, 2, 1]], None, 0, &device);
    let input = input.expect("two texts");
    let input = match model.task() {
        Task::Seq2SeqLm => input.clone().with_decoder(input).expect("as many"),
        _ => input,
    };
    let output = model.infer(&input, &()).expect("outputs");
    output.into_data().iter().collect()
}

#[test]
fn a_field_that_is_left_out_has_the_default_of_its_architecture() {
    for (base, field, default) in [
        ("roberta", "pad_token_id", json!(1)),
        ("bart-sequence", "pad_token_id", json!(1)),
        ("bart-sequence", "eos_token_id", json!(2)),
        ("bart-sequence", "decoder_start_token_id", json!(2)),
        ("t5-sequence", "eos_token_id", json!(1)),
        ("llama-linear", "max_position_embeddings", json!(2048)),
        ("llama-linear", "rms_norm_eps", json!(1e-6)),
        ("mistral", "sliding_window", json!(4096)),
    ] {
        let without = loaded(base, &json!({}), &[field]).expect(field);
        let with = loaded(base, &json!({ field: default }), &[]).expect(field);
        assert_eq!(outputs(&without), outputs(&with), "{base} {field}");
    }
    // Four heads of which not all have keys of their own.
    let error = loaded("mistral", &json!({}), &["num_key_value_heads"]).expect_err("eight of four");
    assert!(error.contains("num_key_value_heads = 8"), "{error}");
    let error = loaded("mistral", &json!({"max_position_embeddings": 5000}), &["sliding_window"]);
    let error = error.expect_err("4096 of 5000");
    assert!(error.contains("sliding_window = 4096"), "{error}");
}

#[test]
fn an_older_name_of_a_scaling_comes_first() {
    let of = |scaling| {
        let fields = json!({"rope_scaling": scaling});
        outputs(&loaded("llama-linear", &fields, &[]).expect("a model"))
    };
    let linear = of(json!({"rope_type": "linear", "factor": 3.0}));
    assert_eq!(of(json!({"type": "linear", "rope_type": "default", "factor": 3.0})), linear);
    // The base stands beside it.
    assert_eq!(of(json!({"type": "linear", "factor": 3.0, "rope_theta": 5.0})), linear);
}

#[test]
fn what_t5_made_of_its_feed_forward_comes_before_its_name() {
    let plain = outputs(&loaded("t5-left", &json!({}), &[]).expect("relu"));
    let named = json!({"feed_forward_proj": "gated-silu"});
    assert_eq!(plain, outputs(&loaded("t5-left", &named, &[]).expect("relu, not gated")));
    let made = loaded("t5-left", &json!({"dense_act_fn": "silu"}), &[]).expect("silu");
    let fields = ["dense_act_fn", "is_gated_act"];
    let named = loaded("t5-left", &json!({"feed_forward_proj": "silu"}), &fields).expect("silu");
    assert_eq!(outputs(&made), outputs(&named));
    assert_ne!(plain, outputs(&named));
}

#[test]
fn indices_that_no_table_has_are_errors() {
    let device = Device::default();
    let large = |ids: TensorData| {
        let input = ModelInput::from_data(ids, None, None, &device);
        input.and_then(|input| loaded("bert", &json!({}), &[]).expect("a model").infer(&input, &()))
    };
    for ids in [
        TensorData::new(vec![1u64 << 63, 1], [1, 2]),
        TensorData::new(vec![u64::MAX, 1], [1, 2]),
        TensorData::new(vec![1i64 << 31, 1], [1, 2]),
        TensorData::new(vec![i64::MAX, 1], [1, 2]),
        TensorData::new(vec![-1i64, 1], [1, 2]),
        TensorData::new(vec![1e20f32, 1.0], [1, 2]),
        TensorData::new(vec![f32::NAN, 1.0], [1, 2]),
        TensorData::new(vec![f32::INFINITY, 1.0], [1, 2]),
        TensorData::new(vec![0.5f64, 1.0], [1, 2]),
    ] {
        let error = large(ids.clone()).expect_err("no such token").to_string();
        assert!(error.starts_with("input: "), "{ids:?}: {error}");
    }
    assert!(large(TensorData::new(vec![3.0f32, 1.0], [1, 2])).is_ok());
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
