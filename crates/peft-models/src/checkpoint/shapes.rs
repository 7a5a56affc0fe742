//! The shapes of a checkpoint's tensors, without their values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use peft_format::read_pytorch;
use safetensors::tensor::Metadata;

use crate::{Error, Result};

/// Shapes by key.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// What stands before the header: its length.
const LENGTH: u64 = size_of::<u64>() as u64;

/// The shapes in a safetensors file, from its header.
///
/// # Errors
/// If the file is missing or broken, or does not hold what its header says.
pub(super) fn of_safetensors(path: &Path) -> Result<Shapes> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let broken =
        |reason: &str| Error::file(path, format!("not a whole safetensors file: {reason}"));
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length).map_err(|_| broken("there is no header"))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(LENGTH) {
        return Err(broken("it ends in its header"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(failed)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|e| broken(&format!("its header: {e}")))?;
    if (LENGTH + length).checked_add(header.data_len() as u64) != Some(size) {
        return Err(broken("it has other values than its header says"));
    }
    Ok(header.tensors().into_iter().map(|(key, info)| (key, info.shape.clone())).collect())
}

/// The shapes in a PyTorch file, which has no header: it is read as a whole.
///
/// # Errors
/// As for its values.
pub(super) fn of_pytorch(path: &Path) -> Result<Shapes> {
    let tensors = read_pytorch(path)?.into_iter();
    Ok(tensors.map(|(key, data)| (key, data.shape().to_vec())).collect())
}
