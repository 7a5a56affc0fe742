//! What a run has written. An input is files, each after a line `==> NAME`.

#![no_main]

use std::fs;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use peft::format::SavedTask;
use peft::train::{History, RunDirectory, TaskFile};
use peft_fuzz::{Scratch, check};

thread_local!(static SCRATCH: Scratch = const { Scratch::new() });

fuzz_target!(|input: &[u8]| check(|| {
    SCRATCH.with(|scratch| {
        let directory = scratch.path().join("run");
        if directory.exists() {
            fs::remove_dir_all(&directory).expect("it is ours");
        }
        fs::create_dir(&directory).expect("the folder takes folders");
        for (name, file) in files(input) {
            let path = directory.join(name);
            let parent = path.parent().unwrap_or(&directory);
            if fs::create_dir_all(parent).is_ok() {
                let _ = fs::write(path, file);
            }
        }
        let run = RunDirectory::new(&directory);
        let _ = (run.is_used(), run.has_checkpoint(), run.outcome());
        let _ = (TaskFile::load(&run.adapter()), SavedTask::load(&run.adapter()));
        let before = run.entries();
        if let Ok(claimed) = run.claim(true) {
            // What is read is kept.
            let kept = History::open(&claimed.metrics(), |_| true);
            if let (Ok(before), Ok(kept)) = (before, kept) {
                assert_eq!(before.len(), kept.entries().len());
                assert_eq!(claimed.entries().expect("it was read").len(), before.len());
            }
        }
    });
}));

/// The files of an input whose names lie in the directory.
fn files(input: &[u8]) -> Vec<(&str, Vec<u8>)> {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"==> ").map(std::str::from_utf8) {
            Some(Ok(name)) => files.push((name.trim_end(), Vec::new())),
            _ => {
                if let Some((_, file)) = files.last_mut() {
                    file.extend_from_slice(line);
                }
            }
        }
    }
    let is_inside = |name: &&str| {
        let mut parts = Path::new(name).components();
        name.len() < 64 && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    files.retain(|(name, _)| !name.is_empty() && !name.contains('\0') && is_inside(name));
    files
}
