//! GGUF, the checkpoint format of llama.cpp: one file with tensors, most of them packed in blocks,
//! the model's settings and the tokenizer.

mod blocks;
mod config;
mod container;
mod k_blocks;
mod names;
mod packed;
mod read;
mod tokenizer;

use std::path::{Path, PathBuf};

pub use blocks::BlockFormat;
pub(crate) use config::config_fields;
pub use container::{Gguf, TensorInfo};
pub(crate) use names::tensors;
pub use packed::PackedTensor;
pub(crate) use tokenizer::tokenizer;

use crate::{Error, Result};

/// The `.gguf` file of a directory, if it has one; or `path` itself, if it is one.
///
/// # Errors
/// If there are several, of which none is meant more than the others.
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
    if is_gguf(path) && path.is_file() {
        return Ok(Some(path.into()));
    }
    // What is no directory has no files.
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_gguf(path)).collect();
    files.sort();
    if files.len() > 1 {
        let names: Vec<String> = files
            .iter()
            .filter_map(|file| file.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let names = names.join(", ");
        return Err(Error::file(path, format!("several .gguf files, name the one meant: {names}")));
    }
    Ok(files.pop())
}
