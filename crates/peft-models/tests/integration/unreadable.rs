//! Files that are there and cannot be looked at are not taken for missing.

#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::path::Path;

use peft_models::{Gguf, ModelConfig, ShardIndex, TextTokenizer, config_fields};

use crate::support::base;

/// A link that leads to itself: even root, who may read everything, cannot look at what it is.
fn loops(path: &Path) {
    symlink(path.file_name().expect("a name"), path).expect("a link");
}

#[test]
fn a_configuration_that_cannot_be_looked_at_is_an_error_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    loops(&path);
    for error in [
        ModelConfig::load(directory.path()).map(|_| ()).expect_err("a loop"),
        config_fields(directory.path()).map(|_| ()).expect_err("a loop"),
    ] {
        let error = error.to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(!error.contains("not there"), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_looked_at_does_not_lack_a_gguf_file() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["model", "model.gguf"] {
        let path = directory.path().join(name);
        loops(&path);
        assert!(Gguf::find(&path).is_err(), "{name}");
    }
    assert!(Gguf::find(&directory.path().join("none")).expect("it is not there").is_none());
}

#[test]
fn a_shard_that_cannot_be_looked_at_is_not_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.safetensors.index.json");
    let map = r#"{"weight_map": {"a": "1.safetensors"}}"#;
    std::fs::write(&path, map).expect("written");
    let index = ShardIndex::load(&path).expect("an index");
    assert!(!index.is_complete());
    loops(&directory.path().join("1.safetensors"));
    assert!(index.is_complete());
}

#[test]
fn a_tokenizer_that_cannot_be_looked_at_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = base("bert").join("config.json");
    std::fs::copy(config, directory.path().join("config.json")).expect("copied");
    let path = directory.path().join("tokenizer.json");
    loops(&path);
    let error = TextTokenizer::load(directory.path(), 8).map(|_| ()).expect_err("a loop");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
}
