//! The shapes of a checkpoint's tensors, without their values.

use std::collections::BTreeMap;
use std::path::Path;

use peft_format::{SafetensorsFile, read_pytorch};

use crate::Result;

/// Shapes by key.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes in a safetensors file, from its header.
///
/// # Errors
/// If the file is missing or broken, or does not hold what its header says.
pub(super) fn of_safetensors(path: &Path) -> Result<Shapes> {
    Ok(SafetensorsFile::open(path)?.shapes())
}

/// The shapes in a PyTorch file, which has no header: it is read as a whole.
///
/// # Errors
/// As for its values.
pub(super) fn of_pytorch(path: &Path) -> Result<Shapes> {
    let tensors = read_pytorch(path)?.into_iter();
    Ok(tensors.map(|(key, data)| (key, data.shape().to_vec())).collect())
}
