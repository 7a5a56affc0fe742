//! Checkpoints: all that a run needs to go on as if it had never stopped.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use peft_core::Stack;
use peft_format::{sync_directory, write_atomically};
use serde::{Deserialize, Serialize};

use super::History;
use super::sums::Sums;
use crate::{Error, Result};

/// Where a run is.
///
/// The order of the data and the random state of a step are functions of the seed, the epoch and
/// the step, so their places are all there is to keep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Optimizer steps done.
    pub step: usize,
    /// Epochs done.
    pub epochs: usize,
    /// Batches of the current epoch done.
    pub batches: usize,
    /// The best epoch.
    pub best: Option<Best>,
    /// What the lines of the log up to here are known by.
    pub log: String,
    /// Seconds spent training before.
    pub seconds: f64,
    /// Tokens trained on before.
    pub tokens: usize,
    /// Whether the settings are those of this run.
    pub fingerprint: String,
}

/// The epoch whose adapter is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// Its number, from 1.
    pub epoch: usize,
    /// Its value of the metric.
    pub value: f64,
    /// Its loss, which decides between epochs of like value.
    pub loss: f64,
    /// What the file with its adapter is known by.
    pub digest: String,
}

const POSITION: &str = "position.json";
const METHOD: &str = "method.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
/// What a checkpoint is made of.
const FILES: [&str; 3] = [METHOD, OPTIMIZER, POSITION];

/// Writes a checkpoint over the last one; at any moment, one without power too, a whole one is
/// there, and the lines of the log up to it.
pub(crate) fn save(
    directory: &Path,
    position: &Position,
    method: &Stack,
    optimizer: &ModuleOptimizer,
    log: &History,
) -> Result<()> {
    // First: a checkpoint needs the lines up to it.
    log.sync()?;
    let failed = |e: &dyn std::fmt::Display| Error::file(directory, format!("checkpoint: {e}"));
    let next = directory.with_extension("next");
    let old = directory.with_extension("old");
    removed(&next)?;
    std::fs::create_dir_all(&next).map_err(|e| failed(&e))?;
    // Burn syncs its files, and their names, before it gives back; so does `write_atomically`.
    method.clone().into_record().save(next.join(METHOD)).map_err(|e| failed(&e))?;
    optimizer.save(next.join(OPTIMIZER)).map_err(|e| failed(&e))?;
    let text = serde_json::to_string_pretty(position).map_err(|e| failed(&e))?;
    write_atomically(&next.join(POSITION), |file| writeln!(file, "{text}"))?;
    Sums::of(&next, &FILES)?.save(&next)?;
    // A directory cannot be replaced in one step: the old one stays until the new one is there. Where
    // the run was cut off between the two, it is the only one.
    if directory.exists() {
        removed(&old)?;
        std::fs::rename(directory, &old).map_err(|e| failed(&e))?;
    }
    std::fs::rename(&next, directory).map_err(|e| failed(&e))?;
    if let Some(run) = directory.parent() {
        sync_directory(run).map_err(|e| failed(&e))?;
    }
    removed(&old)
}

/// Removes a directory, if it is there.
pub(crate) fn removed(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::file(directory, format!("cannot be removed: {e}")))
        }
        _ => Ok(()),
    }
}

/// The position of the checkpoint, whose files are as they were written; `None` if there is none.
pub(crate) fn position(directory: &Path) -> Result<Option<Position>> {
    let Some(directory) = kept(directory) else { return Ok(None) };
    Sums::check_all(&directory, &FILES)?;
    let path = directory.join(POSITION);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(&path, e))
}

/// The position of the checkpoint, and the method and optimizer there; `None` if there is none.
pub(crate) fn load(
    directory: &Path,
    method: &Stack,
    optimizer: &ModuleOptimizer,
) -> Result<Option<(Position, Stack, ModuleOptimizer)>> {
    let Some(position) = position(directory)? else { return Ok(None) };
    let Some(directory) = kept(directory) else { return Ok(None) };
    let path = directory.join(METHOD);
    let record = ModuleRecord::load(&path).map_err(|e| Error::file(&path, e))?;
    let method = method.clone().try_load_record(record).map_err(|e| Error::file(&path, e))?;
    let path = directory.join(OPTIMIZER);
    let optimizer = optimizer.clone().load(&path).map_err(|e| Error::file(&path, e))?;
    Ok(Some((position, method, optimizer)))
}

/// Where the last whole checkpoint is, if there is one.
pub(crate) fn kept(directory: &Path) -> Option<PathBuf> {
    let places = [directory.to_path_buf(), directory.with_extension("old")];
    // One that lacks a file is damaged, and not one that is not there.
    places.into_iter().find(|place| place.is_dir())
}

/// Removes the checkpoint of a finished run.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    removed(directory)?;
    removed(&directory.with_extension("next"))?;
    removed(&directory.with_extension("old"))
}

#[cfg(test)]
mod tests {
    use peft_kernels::AdamW;

    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        method: Stack,
        optimizer: ModuleOptimizer,
        log: History,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let log = History::open(&folder.path().join("metrics.jsonl"), |_| true).expect("a log");
            Self { folder, method: Stack::new(vec![]), optimizer: AdamW::new(0.01).into(), log }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join(name)
        }

        fn save(&self, step: usize) -> Result<()> {
            let position = Position { step, ..Position::default() };
            save(&self.path("checkpoint"), &position, &self.method, &self.optimizer, &self.log)
        }

        fn step(&self) -> Option<usize> {
            let found = load(&self.path("checkpoint"), &self.method, &self.optimizer);
            found.expect("a whole one, or none").map(|(position, ..)| position.step)
        }
    }

    #[test]
    fn the_last_checkpoint_is_found_wherever_the_run_was_cut_off() {
        let bench = Bench::new();
        assert_eq!(bench.step(), None);
        bench.save(1).expect("saved");
        assert_eq!(bench.step(), Some(1));
        bench.save(2).expect("saved");
        assert_eq!(bench.step(), Some(2));
        assert!(!bench.path("checkpoint.old").exists());
        // While the next one is written, and between the two names.
        std::fs::create_dir(bench.path("checkpoint.next")).expect("made");
        std::fs::write(bench.path("checkpoint.next/method.bpk"), "cut o").expect("written");
        assert_eq!(bench.step(), Some(2));
        std::fs::rename(bench.path("checkpoint"), bench.path("checkpoint.old")).expect("renamed");
        assert_eq!(bench.step(), Some(2));
        bench.save(3).expect("saved");
        assert_eq!(bench.step(), Some(3));
        remove(&bench.path("checkpoint")).expect("removed");
        let left = bench.folder.path().read_dir().expect("a directory").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["metrics.jsonl"]);
    }

    #[test]
    fn a_checkpoint_with_any_byte_changed_or_any_file_gone_is_an_error_and_never_another_one() {
        let bench = Bench::new();
        bench.save(1).expect("saved");
        let directory = bench.path("checkpoint");
        let failed = || {
            let error = load(&directory, &bench.method, &bench.optimizer).map(|_| ());
            error.expect_err("damaged").to_string()
        };
        for entry in directory.read_dir().expect("a directory") {
            let path = entry.expect("an entry").path();
            let whole = std::fs::read(&path).expect("there");
            for at in (0..whole.len()).step_by(whole.len().div_ceil(64)) {
                let mut damaged = whole.clone();
                damaged[at] ^= 4;
                std::fs::write(&path, &damaged).expect("written");
                assert!(failed().contains(&*directory.to_string_lossy()), "{}", failed());
                // Without what ends the last line nothing is missing.
                if whole[at..] != *b"\n" {
                    std::fs::write(&path, &whole[..at]).expect("written");
                    failed();
                }
            }
            std::fs::remove_file(&path).expect("removed");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(failed().contains(&name), "{}", failed());
            std::fs::write(&path, &whole).expect("written");
        }
        assert_eq!(bench.step(), Some(1));
    }

    /// The run was cut off between the two names, and is again before the next one has its own.
    #[cfg(unix)]
    #[test]
    fn the_only_checkpoint_stays_until_the_next_one_is_there() {
        let bench = Bench::new();
        bench.save(1).expect("saved");
        std::fs::rename(bench.path("checkpoint"), bench.path("checkpoint.old")).expect("renamed");
        // A name that no directory can be given stands for the end of the process.
        std::os::unix::fs::symlink("nowhere", bench.path("checkpoint")).expect("linked");
        bench.save(2).expect_err("the name is taken");
        assert_eq!(bench.step(), Some(1));
    }
    /// A file that takes all that is written, and cannot be synced, stands for a disk that fails.
    #[cfg(target_os = "linux")]
    #[test]
    fn without_the_lines_up_to_it_there_is_no_checkpoint() {
        let mut bench = Bench::new();
        bench.save(1).expect("saved");
        let lost = std::fs::OpenOptions::new().append(true).open("/dev/null");
        bench.log.file = lost.expect("it is there");
        let error = bench.save(2).expect_err("the log is lost").to_string();
        assert!(error.contains("metrics.jsonl: "), "{error}");
        assert!(!bench.path("checkpoint.next").exists(), "it was begun before");
        assert_eq!(bench.step(), Some(1));
    }
}
