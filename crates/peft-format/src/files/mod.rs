//! Files of tensors, and how any file is written.

mod atomic;
mod pytorch;
mod tensors;

pub use atomic::{
    create_directory, is_unfinished, remove_unfinished, sync_directory, write_atomically,
};
pub use pytorch::read_pytorch;
pub use tensors::{SafetensorsFile, read_safetensors, write_safetensors};

use std::path::Path;

use peft_core::TensorMap;

/// Reads every tensor of a file of either kind.
pub(crate) fn read_tensors(path: &Path) -> crate::Result<TensorMap> {
    match path.extension().is_some_and(|extension| extension == "bin") {
        true => read_pytorch(path),
        false => read_safetensors(path),
    }
}
