//! Checkpoints and configurations that do not go together, or lead elsewhere.

use std::path::Path;

use burn::tensor::Device;
use peft_core::TensorMap;
use peft_format::{read_safetensors, write_safetensors};
use peft_models::{
    Checkpoint, GenerationConfig, Model, ModelConfig, ModelTask, ShardIndex, Task, TextTokenizer,
    config_fields,
};
use serde_json::{Map, Value, json};

use crate::support::base;

fn tensors(name: &str) -> TensorMap {
    read_safetensors(&base(name).join("model.safetensors")).expect("tensors")
}

/// What loading says of the base `name` with other fields and tensors.
fn load(name: &str, fields: &Value, tensors: TensorMap, task: Option<Task>) -> Result<(), String> {
    let mut all: Map<String, Value> = config_fields(&base(name)).expect("a configuration");
    all.extend(fields.as_object().expect("an object").clone());
    let config =
        ModelConfig::from_fields(all, "config.json".as_ref()).map_err(|e| e.to_string())?;
    let task = ModelTask { task: task.unwrap_or(config.own_task()), seed: 0 };
    let mut checkpoint = Checkpoint::from_tensors("checkpoint", tensors);
    let model = Model::from_checkpoint(config, &mut checkpoint, task, &Device::default());
    model.map(|_| ()).map_err(|e| e.to_string())
}

/// What of a base's configuration is a size.
struct Fields {
    base: &'static str,
    /// Numbers of layers, each with a module that would come behind the last.
    layers: &'static [(&'static str, &'static str)],
    /// Others.
    sizes: &'static [&'static str],
}

const FIELDS: [Fields; 8] = [
    Fields {
        base: "bert",
        layers: &[("num_hidden_layers", "encoder.layer.2.attention.self.query")],
        sizes: &["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"],
    },
    Fields {
        base: "roberta",
        layers: &[("num_hidden_layers", "encoder.layer.2.attention.self.query")],
        sizes: &["vocab_size", "hidden_size", "type_vocab_size"],
    },
    Fields {
        base: "distilbert-sequence",
        layers: &[("n_layers", "transformer.layer.2.attention.q_lin")],
        sizes: &["vocab_size", "dim", "hidden_dim", "max_position_embeddings"],
    },
    Fields {
        base: "gpt2-left",
        layers: &[("n_layer", "transformer.h.2.attn.c_attn")],
        sizes: &["vocab_size", "n_embd", "n_inner", "n_positions"],
    },
    Fields {
        base: "llama-sequence",
        layers: &[("num_hidden_layers", "model.layers.2.self_attn.q_proj")],
        sizes: &[
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "head_dim",
            "num_attention_heads",
        ],
    },
    Fields {
        base: "mistral",
        layers: &[("num_hidden_layers", "model.layers.2.self_attn.q_proj")],
        sizes: &["vocab_size", "hidden_size", "head_dim"],
    },
    Fields {
        base: "t5-left",
        layers: &[
            ("num_layers", "encoder.block.2.layer.0.SelfAttention.q"),
            ("num_decoder_layers", "decoder.block.1.layer.0.SelfAttention.q"),
        ],
        sizes: &["vocab_size", "d_model", "d_ff", "d_kv", "num_heads"],
    },
    Fields {
        base: "bart-sequence",
        layers: &[
            ("encoder_layers", "encoder.layers.2.self_attn.q_proj"),
            ("decoder_layers", "decoder.layers.1.self_attn.q_proj"),
        ],
        sizes: &["vocab_size", "d_model", "encoder_ffn_dim", "max_position_embeddings"],
    },
];

#[test]
fn layers_that_the_checkpoint_does_not_have_are_not_built() {
    for Fields { base: name, layers: fields, .. } in FIELDS {
        assert_eq!(load(name, &json!({}), tensors(name), None), Ok(()), "{name}");
        for (field, behind) in fields {
            for layers in [3, 10_000_000_000_u64, u64::MAX] {
                let error = load(name, &json!({ *field: layers }), tensors(name), None);
                let error = error.expect_err("there are two layers");
                assert!(error.starts_with("checkpoint: the checkpoint lacks "), "{error}");
                assert!(error.contains(behind), "{name} {field}: {error}");
            }
        }
    }
}

#[test]
fn sizes_of_a_configuration_take_no_memory_before_tensors_have_them() {
    for Fields { base: name, sizes: fields, .. } in FIELDS {
        for field in fields {
            for size in [1_u64 << 30, 1 << 40, u64::MAX] {
                for tensors in [tensors(name), TensorMap::new()] {
                    let error = load(name, &json!({ *field: size }), tensors, None);
                    let error = error.expect_err("no tensor is so large");
                    let parts = ["the checkpoint lacks", "the configuration asks for", *field];
                    assert!(parts.iter().any(|part| error.contains(part)), "{field}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_new_head_is_made_for_a_whole_body_only() {
    let tasks = [
        Task::ClassifySequence { labels: 3 },
        Task::ClassifyTokens { labels: 3 },
        Task::MaskedLm,
        Task::CausalLm,
        Task::Seq2SeqLm,
    ];
    for Fields { base: name, .. } in FIELDS {
        for task in tasks {
            // Heads of which no tensor says how wide they are.
            let huge = json!({"hidden_size": 1 << 30, "n_embd": 1 << 30, "dim": 1 << 30,
                              "d_model": 1 << 30, "vocab_size": 1 << 30});
            let own = config_fields(&base(name)).expect("a configuration");
            let known = huge.as_object().expect("an object").iter();
            let known = known.filter(|(field, _)| own.contains_key(*field));
            let fields: Map<String, Value> =
                known.map(|(field, size)| (field.clone(), size.clone())).collect();
            let error = load(name, &Value::Object(fields), TensorMap::new(), Some(task));
            let error = error.expect_err("there are no tensors");
            let lacks = error.starts_with("checkpoint: the checkpoint lacks ");
            assert!(lacks || error.contains("architectures"), "{name} {task:?}: {error}");
        }
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_an_error_and_no_panic() {
    for (name, fields, expected) in [
        ("roberta", json!({"pad_token_id": 1_u64 << 40}), "pad_token_id = 1099511627776"),
        ("roberta", json!({"pad_token_id": u64::MAX}), "config.json: "),
        ("bert", json!({"hidden_size": 0}), "hidden_size = 0"),
        ("llama-sequence", json!({"rope_scaling": 3}), "rope_scaling = 3"),
        ("llama-sequence", json!({"rope_scaling": ["linear"]}), "rope_scaling = [\"linear\"]"),
        ("llama-sequence", json!({"num_attention_heads": 0, "head_dim": 8}), "heads = 0"),
        ("t5-left", json!({"relative_attention_max_distance": 0}), "max_distance = 0"),
        ("t5-left", json!({"relative_attention_num_buckets": 2}), "num_buckets = 2"),
    ] {
        let error = load(name, &fields, tensors(name), None).expect_err("it makes no sense");
        assert!(error.contains(expected), "{name} {fields}: {error}");
    }
    // What old files say where there is no token.
    for name in ["roberta", "llama-sequence", "bart-sequence"] {
        assert_eq!(load(name, &json!({"pad_token_id": -1}), tensors(name), None), Ok(()));
    }
}

#[test]
fn a_configuration_is_written_for_tensors_in_f32() {
    for (field, other) in [("dtype", "torch_dtype"), ("torch_dtype", "dtype")] {
        let mut fields = config_fields(&base("bert")).expect("a configuration");
        fields.remove(other);
        fields.insert(field.into(), json!("bfloat16"));
        let config = ModelConfig::from_fields(fields, "config.json".as_ref()).expect("a model");
        let written = config.to_json(Task::Encode, &[], None);
        assert_eq!((&written[field], written.get(other)), (&json!("float32"), None));
    }
}

/// A directory with a base in one shard that the index calls `name`, and what reading it says.
fn sharded(directory: &Path, name: &Value) -> Result<Checkpoint, String> {
    let tensors = tensors("bert");
    let map: Map<String, Value> = tensors.keys().map(|key| (key.clone(), name.clone())).collect();
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(directory.join("model.safetensors.index.json"), index).expect("written");
    Checkpoint::open(directory).map_err(|e| e.to_string())
}

#[test]
fn shards_lie_beside_their_index() {
    let outer = tempfile::tempdir().expect("a directory");
    let inner = outer.path().join("model");
    std::fs::create_dir_all(inner.join("part")).expect("a directory");
    for place in ["weights", "model/weights", "model/part/weights"] {
        write_safetensors(&outer.path().join(place), &tensors("bert")).expect("written");
    }
    let found = sharded(&inner, &json!("weights")).expect("it is there");
    assert_eq!(found.keys().count(), tensors("bert").len());
    let absolute = outer.path().join("weights").display().to_string();
    for name in ["../weights", "part/weights", "part\\weights", "./weights", "weights/", &absolute]
    {
        let error = sharded(&inner, &json!(name)).expect_err("it is elsewhere");
        assert!(error.contains("model.safetensors.index.json"), "{error}");
        assert!(error.contains(&json!(name).to_string()), "{error}");
        assert!(error.contains("must be a plain file name"), "{error}");
    }
    for name in [json!(""), json!("."), json!(".."), json!("/"), json!(3), json!(null)] {
        let error = sharded(&inner, &name).expect_err("it is no file name");
        assert!(error.contains("must be a plain file name"), "{error}");
    }
}

#[test]
fn an_index_is_complete_with_every_shard_it_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.safetensors.index.json");
    let map = json!({"weight_map": {"a": "one", "b": "two", "c": "one"}});
    std::fs::write(&path, map.to_string()).expect("written");
    let index = ShardIndex::load(&path).expect("an index");
    assert_eq!(index.files().collect::<Vec<_>>(), ["one", "two"]);
    for (shard, complete) in [("one", false), ("two", true)] {
        std::fs::write(directory.path().join(shard), "").expect("written");
        assert_eq!(index.is_complete(), complete);
    }
    std::fs::write(&path, "{}").expect("written");
    let error = ShardIndex::load(&path).expect_err("it is no index").to_string();
    assert!(error.contains("no weight_map"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_file_that_cannot_be_looked_at_is_not_one_that_is_not_there() {
    let looped = |name: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let copied = ["config.json", "model.safetensors"];
        for file in copied.into_iter().filter(|file| *file != name) {
            std::fs::copy(base("bert").join(file), directory.path().join(file)).expect("copied");
        }
        // A link to itself.
        std::os::unix::fs::symlink(name, directory.path().join(name)).expect("a link");
        directory
    };
    for name in ["config.json", "model.safetensors"] {
        let directory = looped(name);
        let error = Model::load(directory.path(), None, &Device::default()).map(|_| ());
        let error = error.expect_err(name).to_string();
        assert!(error.contains(name) && !error.contains("not there"), "{error}");
    }
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "added_tokens.json"] {
        let directory = looped(name);
        if name != "vocab.txt" && name != "tokenizer.json" {
            std::fs::write(directory.path().join("vocab.txt"), "[UNK]\n[CLS]\n[SEP]\na\n")
                .expect("written");
        }
        let error = TextTokenizer::load(directory.path(), 16).map(|_| ());
        let error = error.expect_err(name).to_string();
        assert!(error.contains(name) && !error.contains("not there"), "{error}");
    }
    let directory = looped("generation_config.json");
    let config = ModelConfig::load(directory.path()).expect("a configuration");
    let error = GenerationConfig::load(directory.path(), &config).expect_err("a loop").to_string();
    assert!(error.contains("generation_config.json"), "{error}");
}

#[test]
fn a_configuration_of_generation_is_taken_as_transformers_takes_it() {
    let config = ModelConfig::load(&base("gpt2-left")).expect("a configuration");
    let load = |content: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("generation_config.json"), content).expect("written");
        GenerationConfig::load(directory.path(), &config)
    };
    for taken in [
        r#"{"temperature": 0.0, "top_p": 0.0, "top_k": -1}"#,
        r#"{"temperature": null, "top_k": null, "eos_token_id": null, "pad_token_id": -1}"#,
        r#"{"eos_token_id": [-1, 2], "forced_bos_token_id": -1, "num_beams": 1}"#,
    ] {
        let config = load(taken).expect(taken);
        config.validate().expect(taken);
        assert_eq!((config.pad_token_id, config.forced_bos_token_id), (None, None), "{taken}");
    }
    for (refused, field) in [
        (r#"{"temperature": "hot"}"#, "temperature = \"hot\""),
        (r#"{"num_beams": -1}"#, "num_beams = -1"),
        (r#"{"eos_token_id": "x"}"#, "eos_token_id = \"x\""),
        (r#"{"pad_token_id": 99999999999}"#, "pad_token_id = 99999999999"),
        (r#"{"early_stopping": 3}"#, "early_stopping"),
        ("[]", "generation_config.json"),
        ("{", "generation_config.json"),
    ] {
        let error = load(refused).expect_err(refused).to_string();
        assert!(error.contains(field) && error.contains("generation_config.json"), "{error}");
    }
}
