//! A checkpoint whose values are not read has the same shapes.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use peft_core::{BaseSite, FrozenWeight};
use peft_models::{Checkpoint, Model, ModelConfig, ModelTask, Result};

use crate::support::{base, fixture};

fn model(directory: &Path, open: fn(&Path) -> Result<Checkpoint>) -> Model {
    let config = ModelConfig::load(directory).expect("a configuration");
    let task = ModelTask { task: config.own_task(), seed: 0 };
    let mut checkpoint = open(directory).expect("a checkpoint");
    let model = Model::from_checkpoint(config, &mut checkpoint, task, &Device::default());
    model.unwrap_or_else(|e| panic!("{}: {e}", directory.display())).0
}

/// All shapes at a site.
fn shapes(entry: &BaseSite) -> [Option<Vec<usize>>; 3] {
    let BaseSite { weight, gain, bias, .. } = entry;
    let vector = |vector: &Option<Tensor<1>>| vector.as_ref().map(|v| v.dims().into());
    [weight.as_ref().map(|weight| weight.dims().into()), vector(gain), vector(bias)]
}

fn bases() -> Vec<PathBuf> {
    let all = std::fs::read_dir(base("")).expect("the fixtures").flatten();
    let models = ["llama", "qwen2", "gpt2"].map(fixture);
    all.map(|entry| entry.path()).chain(models).collect()
}

#[test]
fn a_model_without_values_has_the_sites_and_shapes_of_one_with_them() {
    for directory in bases() {
        let [whole, outline] =
            [Checkpoint::open, Checkpoint::outline].map(|o| model(&directory, o));
        let name = directory.display();
        assert_eq!(outline.base().len(), whole.base().len(), "{name}");
        for (found, expected) in outline.base().iter().zip(whole.base().iter()) {
            assert_eq!(found.site, expected.site, "{name}");
            assert_eq!(shapes(found), shapes(expected), "{name}: {}", found.site);
        }
        let largest = |weight: &FrozenWeight| -> f32 { weight.dense().abs().max().into_scalar() };
        let words = outline.base().iter().find_map(|entry| entry.weight.as_ref());
        assert_eq!(largest(words.expect("a table of words")), 0.0, "{name}");
    }
}

#[test]
fn what_is_no_whole_file_has_no_outline_either() {
    let whole = std::fs::read(base("bert").join("model.safetensors")).expect("readable");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.safetensors");
    let fails = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).expect("written");
        for open in [Checkpoint::open, Checkpoint::outline] {
            let error = open(directory.path()).expect_err(what).to_string();
            let expected = format!("{}: not a whole safetensors file", path.display());
            assert!(error.starts_with(&expected), "{what}: {error}");
        }
    };
    for end in [0, 7, 8, 9, header - 1, header, header + 1, whole.len() - 1] {
        fails(&whole[..end], &format!("{end} bytes"));
    }
    fails(&[&whole[..], &[0]].concat(), "a byte more");
    for length in [0, 1, header as u64 - 9, header as u64, 1 << 40, u64::MAX] {
        fails(&[&length.to_le_bytes(), &whole[8..]].concat(), &format!("a header of {length}"));
    }
    // A change of a byte of the header is seen by both, or by none.
    let keys = |open: fn(&Path) -> Result<Checkpoint>| -> Option<Vec<String>> {
        Some(open(directory.path()).ok()?.keys().map(String::from).collect())
    };
    for place in (8..header).step_by(3) {
        for byte in [b'0', b'9', b'"', 0xff] {
            let mut changed = whole.clone();
            changed[place] = byte;
            std::fs::write(&path, &changed).expect("written");
            let (found, expected) = (keys(Checkpoint::outline), keys(Checkpoint::open));
            assert_eq!(found, expected, "{byte} at {place}");
        }
    }
}
