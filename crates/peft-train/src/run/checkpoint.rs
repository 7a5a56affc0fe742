//! Checkpoints: all that a run needs to go on as if it had never stopped.

use std::fs::OpenOptions;
use std::path::Path;

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use peft_core::{Stack, sync_directory, write_atomically};
use serde::{Deserialize, Serialize};

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
    /// The best value of the metric, and the epoch (from 1) that had it.
    pub best: Option<(f64, usize)>,
    /// Seconds spent training before.
    pub seconds: f64,
    /// Tokens trained on before.
    pub tokens: usize,
    /// Whether the settings are those of this run.
    pub fingerprint: String,
}

/// Writes a checkpoint over the last one; at any moment, one without power too, a whole one is
/// there.
pub(crate) fn save(
    directory: &Path,
    position: &Position,
    method: &Stack,
    optimizer: &ModuleOptimizer,
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::file(directory, format!("checkpoint: {e}"));
    let next = directory.with_extension("next");
    let old = directory.with_extension("old");
    let _ = std::fs::remove_dir_all(&next);
    std::fs::create_dir_all(&next).map_err(|e| failed(&e))?;
    let (records, state) = (next.join("method.bpk"), next.join("optimizer.bpk"));
    method.clone().into_record().save(&records).map_err(|e| failed(&e))?;
    optimizer.save(&state).map_err(|e| failed(&e))?;
    for file in [records, state] {
        let file = OpenOptions::new().write(true).open(file);
        file.and_then(|file| file.sync_all()).map_err(|e| failed(&e))?;
    }
    // Last, so that records with a position are whole; their names are synced with its own.
    let text = serde_json::to_string_pretty(position).map_err(|e| failed(&e))?;
    write_atomically(&next.join("position.json"), |file| writeln!(file, "{text}"))?;
    // A directory cannot be replaced in one step: the old one stays until the new one is there.
    let _ = std::fs::remove_dir_all(&old);
    if directory.exists() {
        std::fs::rename(directory, &old).map_err(|e| failed(&e))?;
    }
    std::fs::rename(&next, directory).map_err(|e| failed(&e))?;
    if let Some(run) = directory.parent() {
        sync_directory(run).map_err(|e| failed(&e))?;
    }
    let _ = std::fs::remove_dir_all(&old);
    Ok(())
}

/// The position of the checkpoint, and the method and optimizer there; `None` if there is none.
pub(crate) fn load(
    directory: &Path,
    method: &Stack,
    optimizer: &ModuleOptimizer,
) -> Result<Option<(Position, Stack, ModuleOptimizer)>> {
    let old = directory.with_extension("old");
    let directory = if directory.join("position.json").exists() {
        directory
    } else if old.join("position.json").exists() {
        &old
    } else {
        return Ok(None);
    };
    let path = directory.join("position.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
    let position = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
    let path = directory.join("method.bpk");
    let record = ModuleRecord::load(&path).map_err(|e| Error::file(&path, e))?;
    let method = method.clone().try_load_record(record).map_err(|e| Error::file(&path, e))?;
    let path = directory.join("optimizer.bpk");
    let optimizer = optimizer.clone().load(&path).map_err(|e| Error::file(&path, e))?;
    Ok(Some((position, method, optimizer)))
}

/// Removes the checkpoint of a finished run.
pub(crate) fn remove(directory: &Path) {
    for extension in ["", "next", "old"] {
        let path = if extension.is_empty() {
            directory.to_path_buf()
        } else {
            directory.with_extension(extension)
        };
        let _ = std::fs::remove_dir_all(path);
    }
}
