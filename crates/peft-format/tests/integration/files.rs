//! Files on disk: whole or not there, and never a panic.

use std::path::Path;

use burn::tensor::{DType, TensorData};
use peft_core::{KeyProblem, TensorMap};
use peft_format::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterConfig, Error, Registry, Result, SavedTask,
    TaskType, create_directory, read_safetensors, write_atomically, write_safetensors,
};
use peft_lora::LoraConfig;
use proptest::prelude::*;
use serde_json::json;
use tempfile::tempdir;

use crate::support::{bert, device, names, random_lora};

fn tensors() -> TensorMap {
    let numbers: Vec<f32> = (0..15).map(|i| 0.5 - i as f32).collect();
    TensorMap::from([
        ("matrix".to_string(), TensorData::new(numbers.clone(), [3, 5])),
        ("half".to_string(), TensorData::new(numbers[..4].to_vec(), [4]).convert_dtype(DType::F16)),
        ("whole".to_string(), TensorData::new(vec![7i64, -9], [2])),
        ("empty".to_string(), TensorData::new(Vec::<f32>::new(), [0, 5])),
    ])
}

fn bytes_of(tensors: &TensorMap) -> Vec<u8> {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("file");
    write_safetensors(&path, tensors).expect("it is written");
    std::fs::read(&path).expect("it is there")
}

fn read_bytes(bytes: &[u8]) -> Result<TensorMap> {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("file");
    std::fs::write(&path, bytes).expect("it is written");
    read_safetensors(&path)
}

#[test]
fn tensors_are_read_as_they_were_written() {
    assert_eq!(read_bytes(&bytes_of(&tensors())).expect("it is whole"), tensors());
    assert_eq!(read_bytes(&bytes_of(&TensorMap::new())).expect("it is whole"), TensorMap::new());
}

#[test]
fn a_directory_is_made_with_those_above_it_and_one_that_is_there_stays() {
    let directory = tempdir().expect("a directory");
    let inner = directory.path().join("a/b/c");
    create_directory(&inner).expect("it is made");
    std::fs::write(inner.join("file"), "kept").expect("it is written");
    create_directory(&inner).expect("it is there");
    assert_eq!(std::fs::read_to_string(inner.join("file")).expect("it is there"), "kept");
    create_directory(&inner.join("file/d")).expect_err("a file is no directory");
    create_directory(&inner.join("file")).expect_err("a file is no directory");
}

#[test]
fn a_head_without_values_says_nothing_of_labels() {
    let directory = tempdir().expect("a directory");
    std::fs::write(directory.path().join(ADAPTER_CONFIG), "{\"peft_type\": \"LORA\"}")
        .expect("it is written");
    for (shape, labels) in
        [(vec![3, 2], Some(3)), (vec![], None), (vec![1 << 40, 0], None), (vec![0, 2], None)]
    {
        let count = shape.iter().product();
        let head = TensorData::new(vec![0.0f32; count], shape.clone());
        let tensors = TensorMap::from([("base_model.model.classifier.weight".into(), head)]);
        write_safetensors(&directory.path().join(ADAPTER_WEIGHTS), &tensors).expect("written");
        let saved = SavedTask::load(directory.path()).expect("it can be read");
        assert_eq!(saved.outputs("classifier"), labels, "{shape:?}");
    }
}

#[test]
fn a_head_is_found_by_its_whole_path_behind_any_prefix() {
    let directory = tempdir().expect("a directory");
    std::fs::write(directory.path().join(ADAPTER_CONFIG), "{\"peft_type\": \"LORA\"}")
        .expect("it is written");
    for prefix in ["base_model.model.", "base_model.", "", "_orig_mod.base_model.model."] {
        let tensor = |outputs: usize| TensorData::new(vec![0.0f32; 2 * outputs], [outputs, 2]);
        let tensors = TensorMap::from([
            (format!("{prefix}pre_classifier.weight"), tensor(7)),
            (format!("{prefix}classification_head.out_proj.weight"), tensor(3)),
            (format!("{prefix}model.layers.0.score.lora_A.weight"), tensor(5)),
        ]);
        write_safetensors(&directory.path().join(ADAPTER_WEIGHTS), &tensors).expect("written");
        let saved = SavedTask::load(directory.path()).expect("it can be read");
        assert_eq!(saved.outputs("classification_head.out_proj"), Some(3), "{prefix:?}");
        for other in ["classifier", "score", "out_proj.weight"] {
            assert_eq!(saved.outputs(other), None, "{prefix:?} {other}");
            assert!(!saved.has(other), "{prefix:?} {other}");
        }
        assert!(saved.has("pre_classifier"));
    }
}

#[test]
fn the_reference_finds_its_mark() {
    let bytes = bytes_of(&tensors());
    let header = String::from_utf8_lossy(&bytes[8..200]).into_owned();
    assert!(header.contains(r#""__metadata__":{"format":"pt"}"#), "{header}");
}

#[test]
fn what_cannot_be_stored_leaves_no_file() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("file");
    let flags = TensorData::new(vec![true, false], [2]);
    let error = write_safetensors(&path, &TensorMap::from([("flags".to_string(), flags)]));
    assert!(matches!(error, Err(Error::File { .. })), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    match read_safetensors(Path::new("no/such.safetensors")) {
        Err(Error::File { path, .. }) => assert_eq!(path, Path::new("no/such.safetensors")),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_truncated_file_is_an_error(cut in 0.0..1.0f64) {
        let bytes = bytes_of(&tensors());
        let length = (bytes.len() as f64 * cut) as usize;
        let found = read_bytes(&bytes[..length]);
        prop_assert!(matches!(found, Err(Error::File { .. })), "{length} bytes: {found:?}");
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn a_random_header_never_panics(
        header in r#"\{("[a-z_]{1,12}":\{("(dtype|shape|data_offsets)":("F32"|"BOOL"|"F8_E4M3"|\[[0-9]{1,20},-?[0-9]\]|\[\]),?){0,4}\},?){0,3}\}"#,
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(rest);
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes_of(&tensors());
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(tensors) = read_bytes(&bytes) {
            // What is read can be used.
            for data in tensors.into_values() {
                let _ = data.convert::<f32>();
            }
        }
    }
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("made/on/the/way/file");
    write_atomically(&path, |file| file.write_all(b"old")).expect("it is written");
    let broken = write_atomically(&path, |file| {
        file.write_all(b"half of the n")?;
        Err(std::io::Error::other("the disk is full"))
    });
    match broken {
        Err(Error::File { path: named, reason }) => {
            assert_eq!(named, path);
            assert!(reason.contains("the disk is full"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).expect("it is there"), b"old");
    write_atomically(&path, |file| file.write_all(b"new")).expect("it is written");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"new");
    let parent = path.parent().expect("a parent");
    assert_eq!(std::fs::read_dir(parent).expect("a directory").count(), 1, "nothing is left over");
}

#[test]
#[cfg(unix)]
fn a_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempdir().expect("a directory");
    let [ours, other] = ["ours", "other"].map(|name| directory.path().join(name));
    write_atomically(&ours, |file| file.write_all(b"text")).expect("it is written");
    std::fs::write(&other, "text").expect("it is written");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode(&ours), mode(&other));
}

#[test]
fn an_adapter_directory_with_problems_names_each_key() {
    let (base, device) = (bert(), device());
    let mut registry = Registry::new();
    registry.register::<LoraConfig>();
    let config = AdapterConfig::new(Box::new(random_lora(2, 3.0, names(&["query"]))))
        .with_task(TaskType::SequenceClassification, &base);
    let adapter = Adapter::new(config, &base, &device).expect("it fits");
    let directory = tempdir().expect("a directory");
    adapter.save(directory.path(), &base).expect("it is saved");
    let check = || Adapter::check(directory.path(), &registry, &base, &device).expect("readable");
    assert!(check().ok, "{:?}", check().problems);
    assert_eq!(check().expected, adapter.specs(&base));

    let weights = directory.path().join(ADAPTER_WEIGHTS);
    let mut tensors = read_safetensors(&weights).expect("it is whole");
    let key = |rest: &str| format!("base_model.model.bert.encoder.layer.0.attention.self.{rest}");
    let a = tensors.remove(&key("query.lora_A.weight")).expect("a factor");
    tensors.insert(key("key.lora_A.weight"), a);
    tensors.insert("base_model.model.classifier.bias".into(), TensorData::new(vec![0.5f32], [1]));
    write_safetensors(&weights, &tensors).expect("it is written");

    let expected = [
        KeyProblem::Shape {
            key: "base_model.model.classifier.bias".into(),
            expected: vec![3],
            found: vec![1],
        },
        KeyProblem::Missing { key: key("query.lora_A.weight"), expected: vec![2, 6] },
        KeyProblem::Unexpected { key: key("key.lora_A.weight"), found: vec![2, 6] },
    ];
    let found = check();
    assert!(!found.ok);
    assert_eq!(found.problems, expected);
    match Adapter::load(directory.path(), &registry, &base, &device) {
        Err(Error::Keys { path, problems }) => {
            assert_eq!(path, weights);
            // Of another base nothing fits: a few say so.
            let [first, second, _] = expected.map(|problem| problem.to_string());
            let shown = format!("{first}; {second}; and 1 more, which `peft check` lists");
            assert_eq!(problems, shown);
        }
        other => panic!("{other:?}"),
    }

    let bytes = std::fs::read(&weights).expect("it is there");
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).expect("it is written");
    let cut = Adapter::load(directory.path(), &registry, &base, &device);
    assert!(matches!(cut, Err(Error::File { .. })), "{cut:?}");
}

#[test]
fn the_model_that_an_adapter_was_made_for_is_read_from_either_layout() {
    let directory = tempdir().expect("a directory");
    let made_for = |name: &str, config: serde_json::Value| {
        let (config_file, fusion) = ("adapter_config.json", "adapter_fusion_config.json");
        for file in [config_file, fusion] {
            let _ = std::fs::remove_file(directory.path().join(file));
        }
        std::fs::write(directory.path().join(name), config.to_string()).expect("it is written");
        Adapter::made_for(directory.path())
    };
    for (config, expected) in [
        (json!({"base_model_name_or_path": "owner/name"}), Some("owner/name")),
        (json!({"base_model_name_or_path": "a/b", "revision": "v2"}), Some("a/b@v2")),
        (json!({"base_model_name_or_path": "a/b", "revision": "main"}), Some("a/b")),
        // A directory has no revisions.
        (json!({"base_model_name_or_path": "src", "revision": "v2"}), Some("src")),
        (json!({"base_model_name_or_path": null, "revision": "v2"}), None),
        (json!({"base_model_name_or_path": ""}), None),
        (json!({"model_name": "bert-base-uncased", "config": {}}), Some("bert-base-uncased")),
        (json!({}), None),
    ] {
        for name in ["adapter_config.json", "adapter_fusion_config.json"] {
            let found = made_for(name, config.clone()).expect("it is a configuration");
            assert_eq!(found.as_deref(), expected, "{config}");
        }
    }
    let wrong = made_for("adapter_config.json", json!({"base_model_name_or_path": 1}));
    let wrong = wrong.expect_err("no name").to_string();
    assert!(wrong.contains("base_model_name_or_path = 1: must be a string"), "{wrong}");
    assert!(made_for("adapter_config.json", json!([])).is_err());
}
