//! Model configurations: a fixture's weights under another `config.json`.
//!
//! An input is the name of a base of the fixtures on a line, and the configuration.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use peft::models::{GenerationConfig, Model, ModelInput};
use peft_fuzz::{check, choose, first_line, folders};
use tempfile::TempDir;

thread_local!(static BASES: Vec<(String, TempDir)> = {
    let copy = |(name, path): (String, std::path::PathBuf)| {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        fs::copy(path.join("model.safetensors"), folder.path().join("model.safetensors"))
            .expect("the fixture is whole");
        (name, folder)
    };
    folders("bases").into_iter().map(copy).collect()
});

fuzz_target!(|input: &[u8]| check(|| {
    BASES.with(|bases| {
        let (name, config) = first_line(input);
        let directory = choose(bases, name).path();
        for file in ["config.json", "generation_config.json"] {
            fs::write(directory.join(file), config).expect("the folder takes files");
        }
        let device = peft::device("flex").expect("there");
        let Ok((model, _)) = Model::load(directory, None, &device) else { return };
        let _ = GenerationConfig::load(directory, model.config());
        // What is loaded runs, or says why not.
        let pad = model.config().pad_token_id();
        let input = ModelInput::from_rows(&[&[1, 2, 3], &[2]], None, pad, &device);
        let _ = model.infer(&input.expect("two texts"), &());
    });
}));
