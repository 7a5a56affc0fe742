//! GGUF files give what the reference makes of them.

use std::path::Path;

use burn::tensor::TensorData;
use peft_format::read_safetensors;
use peft_kernels::{BlockFormat, PackedTensor};
use peft_models::{Checkpoint, Gguf, TextTokenizer, config_fields};
use serde_json::{Map, Value, json};

use crate::support::{Draft, fixture};

const FORMATS: [BlockFormat; 11] = [
    BlockFormat::F32,
    BlockFormat::F16,
    BlockFormat::BF16,
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q5_0,
    BlockFormat::Q5_1,
    BlockFormat::Q4_K,
    BlockFormat::Q5_K,
    BlockFormat::Q6_K,
];

fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn data_bits(data: &TensorData) -> Vec<u32> {
    bits(data.as_slice::<f32>().expect("f32").iter().copied())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

fn ids(directory: &Path, texts: &[&str]) -> Vec<Vec<u32>> {
    let tokenizer = TextTokenizer::load(directory, 1000).expect("a tokenizer");
    let texts: Vec<_> = texts.iter().map(|text| ((*text).to_string(), None)).collect();
    tokenizer.encode(&texts).expect("tokens").into_iter().map(|encoded| encoded.ids).collect()
}

#[test]
fn blocks_unpack_to_the_bits_that_ggml_makes_of_them() {
    let recorded = read_safetensors(&fixture("blocks.safetensors")).expect("readable");
    for format in FORMATS {
        let blocks = recorded[&format!("{format:?}.blocks")].as_bytes();
        let expected = data_bits(&recorded[&format!("{format:?}.values")]);
        assert_eq!(expected.len(), blocks.len() / format.bytes() * format.values());
        assert_eq!(bits(format.unpack(blocks)), expected, "{format:?}");
    }
}

#[test]
fn models_have_the_tensors_of_transformers_bit_for_bit() {
    for (model, count) in [("llama", 20), ("qwen2", 15), ("gpt2", 16)] {
        let path = fixture(model).join("expected.safetensors");
        let expected = read_safetensors(&path).expect("readable");
        let mut found = Checkpoint::open(&fixture(model)).expect("it opens");
        assert_eq!(expected.len(), count, "{model}");
        assert!(found.keys().eq(expected.keys().map(String::as_str)), "{model}: {found:?}");
        for (key, expected) in &expected {
            let found = found.take(key).expect("just listed");
            assert_eq!(found.shape(), expected.shape(), "{model}: {key}");
            assert_eq!(data_bits(&found), data_bits(expected), "{model}: {key}");
        }
    }
}

#[test]
fn models_have_the_configuration_that_they_were_made_from() {
    for (model, count) in [("llama", 18), ("qwen2", 16), ("gpt2", 15)] {
        let expected = read_json(&fixture(model).join("expected.json"));
        let found = config_fields(&fixture(model)).expect("fields");
        for (field, found) in &found {
            assert_eq!(Some(found), expected.get(field), "{model}: {field}");
        }
        assert_eq!(found.len(), count, "{model}: {found:?}");
    }
}

#[test]
fn a_config_json_beside_the_file_comes_first() {
    let directory = Draft::llama().save();
    std::fs::write(directory.path().join("config.json"), "{\"model_type\": \"x\"}")
        .expect("written");
    let expected = Map::from_iter([("model_type".to_string(), json!("x"))]);
    assert_eq!(config_fields(directory.path()).expect("fields"), expected);
}

#[test]
fn texts_are_cut_as_the_file_says_and_get_the_tokens_of_the_reference() {
    let recorded = read_json(&fixture("tokens.json"));
    let texts: Vec<&str> =
        recorded["texts"].as_array().expect("texts").iter().filter_map(Value::as_str).collect();
    let original = Gguf::open(&fixture("llama/model.gguf")).expect("it opens");
    for (pre, expected) in recorded["ids"].as_object().expect("by rule") {
        let mut draft = Draft::llama();
        draft.metadata.retain(|(key, ..)| !key.starts_with("tokenizer."));
        draft.set_all(original.metadata());
        draft.set("tokenizer.ggml.pre", &json!(pre));
        let directory = draft.save();
        assert_eq!(json!(ids(directory.path(), &texts)), *expected, "{pre}");
    }
}

#[test]
fn beginnings_and_ends_are_added_where_the_file_says_so() {
    let mut draft = Draft::llama();
    assert_eq!(ids(draft.save().path(), &["ab"]), [[3, 2]]);
    draft.set("tokenizer.ggml.eos_token_id", &json!(0));
    draft.set("tokenizer.ggml.add_eos_token", &json!(true));
    let directory = draft.save();
    assert_eq!(ids(directory.path(), &["ab", "<s>b"]), [vec![3, 2, 0], vec![3, 3, 1, 0]]);
    let tokenizer = TextTokenizer::load(directory.path(), 100).expect("a tokenizer");
    let pair = tokenizer.encode(&[("a".into(), Some("b".into()))]).expect("tokens");
    assert_eq!(
        (&pair[0].ids, &pair[0].segments),
        (&vec![3, 0, 0, 3, 1, 0], &vec![0, 0, 0, 1, 1, 1])
    );
    draft.set("tokenizer.ggml.add_bos_token", &json!(false));
    draft.set("tokenizer.ggml.add_eos_token", &json!(false));
    assert_eq!(ids(draft.save().path(), &["ab"]), [[2]]);
}

#[test]
fn rows_of_a_rotated_head_are_in_hugging_faces_order_packed_too() {
    // Two heads of four rows; row r holds 8 r to 8 r + 7.
    let directory = Draft::llama().save();
    let key = "model.layers.0.self_attn.q_proj.weight";
    let mut checkpoint = Checkpoint::open(directory.path()).expect("it opens");
    let packed = checkpoint.take_packed(key).expect("packed");
    assert_eq!((packed.format(), packed.shape()), (BlockFormat::F32, &[8, 8][..]));
    assert!(!packed.is_transposed() && !checkpoint.has(key));
    let values = packed.values();
    let firsts: Vec<f32> = values.iter::<f32>().step_by(8).map(|value| value / 8.0).collect();
    assert_eq!(firsts, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(bits(BlockFormat::F32.unpack(packed.bytes())), data_bits(&values));
}

#[test]
fn gpt2_has_packed_matrices_the_other_way_round() {
    let mut checkpoint = Checkpoint::open(&fixture("gpt2")).expect("it opens");
    let packed = checkpoint.take_packed("transformer.h.0.mlp.c_fc.weight").expect("packed");
    assert!(packed.is_transposed());
    assert_eq!((packed.format(), packed.shape()), (BlockFormat::Q8_0, &[64, 32][..]));
    let (across, down) = (packed.values(), packed.format().unpack(packed.bytes()));
    assert_eq!(across.shape().to_vec(), [32, 64]);
    assert_eq!(across.as_slice::<f32>().expect("f32")[5 * 64 + 7], down[7 * 32 + 5]);
    let bias = checkpoint.take_packed("transformer.h.0.mlp.c_fc.bias").expect("packed");
    assert!(!bias.is_transposed());
}

#[test]
fn a_packed_tensor_has_whole_blocks() {
    let new = |shape: &[usize], bytes| {
        PackedTensor::new(BlockFormat::Q8_0, shape.to_vec(), vec![0; bytes]).is_some()
    };
    assert!(new(&[3, 64], 3 * 68));
    assert!(!new(&[3, 64], 3 * 68 - 1));
    assert!(!new(&[64, 3], 3 * 68));
    assert!(!new(&[usize::MAX, 64], 68));
}

#[test]
fn tensors_that_have_no_name_in_hugging_face_stay_visible() {
    let mut draft = Draft::llama();
    draft.tensor("blk.0.attn_new.weight", &[8]);
    draft.tensor("surprise", &[8]);
    let checkpoint = Checkpoint::open(draft.save().path()).expect("it opens");
    assert!(checkpoint.has("blk.0.attn_new.weight") && checkpoint.has("surprise"));
}

#[test]
fn metadata_of_every_type_is_read() {
    let mut draft = Draft::llama();
    let array = [8_u32.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
    let nested = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes(), &array].concat();
    let cases = [
        (0, vec![200], json!(200)),
        (1, vec![200], json!(-56)),
        (2, 50_000_u16.to_le_bytes().to_vec(), json!(50_000)),
        (3, (-3_i16).to_le_bytes().to_vec(), json!(-3)),
        (4, u32::MAX.to_le_bytes().to_vec(), json!(u32::MAX)),
        (5, i32::MIN.to_le_bytes().to_vec(), json!(i32::MIN)),
        (6, 1e-6_f32.to_le_bytes().to_vec(), json!(1e-6)),
        (6, f32::NAN.to_le_bytes().to_vec(), Value::Null),
        (7, vec![1], json!(true)),
        (9, array, json!([])),
        (9, nested, json!([[]])),
        (10, u64::MAX.to_le_bytes().to_vec(), json!(u64::MAX)),
        (11, i64::MIN.to_le_bytes().to_vec(), json!(i64::MIN)),
        (12, 0.1_f64.to_le_bytes().to_vec(), json!(0.1)),
    ];
    for (i, (kind, bytes, _)) in cases.iter().enumerate() {
        draft.set_raw(&format!("case.{i}"), *kind, bytes.clone());
    }
    let directory = draft.save();
    let gguf = Gguf::open(&directory.path().join("model.gguf")).expect("it opens");
    for (i, (_, _, expected)) in cases.iter().enumerate() {
        assert_eq!(&gguf.metadata()[&format!("case.{i}")], expected, "case {i}");
    }
    assert_eq!(gguf.metadata()["general.architecture"], "llama");
    assert_eq!(gguf.chat_template(), Some("{{ messages }}"));
}

#[test]
fn positions_are_scaled_as_the_file_says() {
    let scaling = |changes: Value| {
        let mut draft = Draft::llama();
        draft.set_all(changes.as_object().expect("an object"));
        config_fields(draft.save().path()).expect("fields").remove("rope_scaling")
    };
    assert_eq!(scaling(json!({})), None);
    assert_eq!(scaling(json!({"llama.rope.scaling.type": "none"})), None);
    assert_eq!(
        scaling(json!({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})),
        Some(json!({"rope_type": "linear", "factor": 4.0}))
    );
    assert_eq!(
        scaling(json!({
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 2.5,
            "llama.rope.scaling.original_context_length": 4096,
        })),
        Some(json!({"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 4096}))
    );
}
