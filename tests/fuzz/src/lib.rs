#![doc = include_str!("../README.md")]

use std::cell::OnceCell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use tempfile::TempDir;

/// A folder that a target writes its input into.
pub struct Scratch(OnceCell<TempDir>);

impl Scratch {
    /// None yet: it is made when it is first used.
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// The folder.
    ///
    /// # Panics
    /// If none can be made.
    pub fn path(&self) -> &Path {
        self.0.get_or_init(|| tempfile::tempdir().expect("a folder for temporary files")).path()
    }

    /// A file of the folder with these bytes.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).expect("the folder takes files");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The last panic's message and place.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs a target. A panic that the library catches itself is no finding, which libFuzzer's own hook
/// would make of it; one that reaches this ends the process.
pub fn check(target: impl FnOnce()) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        panic::set_hook(Box::new(|panic| {
            if let Ok(mut last) = LAST_PANIC.lock() {
                *last = panic.to_string();
            }
        }));
    });
    if panic::catch_unwind(AssertUnwindSafe(target)).is_err() {
        eprintln!("{}", LAST_PANIC.lock().expect("nothing else has it"));
        std::process::abort();
    }
}

/// A folder of the workspace's test fixtures.
pub fn fixtures(folder: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures")).join(folder)
}

/// The first line of an input and the rest of it.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (&[], input),
    }
}

/// The one that is called so, or else one that the name's bytes decide on.
pub fn choose<'a, T>(among: &'a [(String, T)], name: &[u8]) -> &'a T {
    let found = among.iter().find(|(known, _)| known.as_bytes() == name);
    let number = name.iter().map(|byte| usize::from(*byte)).sum::<usize>() % among.len();
    &found.unwrap_or(&among[number]).1
}

/// The folders in one of the workspace's fixtures, by name.
///
/// # Panics
/// If it cannot be read.
pub fn folders(of: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(fixtures(of)).expect("the workspace has fixtures");
    let mut folders: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_dir())
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    folders.sort();
    folders
}
