//! Adapter directories: a fixture's tensors under another `adapter_config.json`.
//!
//! An input is the name of a fixture of HF PEFT's or of adapter-hub/adapters' format on a line, and
//! the configuration.

#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, thread_local};

use libfuzzer_sys::fuzz_target;
use peft::core::Method;
use peft::format::{ADAPTER_CONFIG, Adapter, SavedTask};
use peft::models::Model;
use peft_fuzz::{check, choose, first_line, fixtures, folders};
use tempfile::TempDir;

/// A fixture: where its configuration is replaced, and the model it is for.
struct Case {
    folder: TempDir,
    base: String,
}

struct State {
    cases: Vec<(String, Case)>,
    models: BTreeMap<String, Model>,
}

thread_local!(static STATE: RefCell<State> = RefCell::new(State::new()));

impl State {
    fn new() -> Self {
        let of_both = ["peft", "adapters"].into_iter().flat_map(folders);
        let mut cases: Vec<(String, Case)> =
            of_both.filter_map(|(name, path)| Some((name.clone(), Case::new(&path)?))).collect();
        cases.sort_by(|(a, _), (b, _)| a.cmp(b));
        let bases: Vec<String> = cases.iter().map(|(_, case)| case.base.clone()).collect();
        let model = |base: String| {
            let directory = fixtures("bases").join(&base);
            let (model, _) = Model::load(&directory, None, &peft::device("flex").expect("there"))
                .expect("the fixture is whole");
            (base, model)
        };
        Self { cases, models: bases.into_iter().map(model).collect() }
    }
}

impl Case {
    /// `None` where several adapters are composed.
    fn new(path: &Path) -> Option<Self> {
        fs::read(path.join(ADAPTER_CONFIG)).ok()?;
        let meta = fs::read(path.join("meta.json")).ok()?;
        let meta: serde_json::Value = serde_json::from_slice(&meta).ok()?;
        let base = meta["arch"].as_str()?.to_string();
        fixtures("bases").join(&base).is_dir().then_some(())?;
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        for entry in fs::read_dir(path).ok()? {
            let file: PathBuf = entry.ok()?.path();
            fs::copy(&file, folder.path().join(file.file_name()?)).ok()?;
        }
        Some(Self { folder, base })
    }
}

fuzz_target!(|input: &[u8]| check(|| {
    STATE.with_borrow(|state| {
        let (name, config) = first_line(input);
        let case = choose(&state.cases, name);
        let directory = case.folder.path();
        fs::write(directory.join(ADAPTER_CONFIG), config).expect("the folder takes files");
        let _ = SavedTask::load(directory);
        let registry = peft::registry();
        let base = state.models[&case.base].base();
        let checked = Adapter::check(directory, &registry, base, base.device());
        let loaded = Adapter::load(directory, &registry, base, base.device());
        let Ok(mut adapter) = loaded else { return };
        assert!(checked.is_ok_and(|check| check.problems.is_empty()), "it loads and is not right");

        // What is read is written, as it is after training, and read as the same.
        adapter.method.finish();
        let again = tempfile::tempdir().expect("a folder for temporary files");
        adapter.save(again.path(), base).expect("an adapter that was read can be written");
        let read = Adapter::load(again.path(), &registry, base, base.device());
        let read = read.unwrap_or_else(|error| panic!("written, and then: {error}"));
        assert_eq!(read.method.virtual_tokens(), adapter.method.virtual_tokens());
        let (read, adapter) = (read.tensors(base), adapter.tensors(base));
        assert!(read.keys().eq(adapter.keys()), "other tensors");
        assert!(adapter.iter().all(|(key, data)| read[key].as_bytes() == data.as_bytes()));
    });
}));
