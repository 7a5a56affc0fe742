//! Named tensors in PyTorch's own files.

use std::path::Path;

use burn::store::pytorch_reader::{self, PytorchReader};
use burn::tensor::{DType, TensorData};
use peft_core::TensorMap;

use crate::{Error, Result};

/// The bytes of all tensors that are no burden, however small their file is: those that share what
/// is stored, as a table that is saved with each layer, are read once each.
const FREE: u64 = 1 << 29;

/// Reads every tensor of a PyTorch file (`torch.save` of a state dict).
///
/// # Errors
/// If the file is missing or truncated, or a tensor is larger than it: a view that repeats a few
/// numbers, or a compressed one.
pub fn read_pytorch(path: &Path) -> Result<TensorMap> {
    let length = std::fs::metadata(path).map_err(|e| Error::file(path, e))?.len();
    let reader = PytorchReader::new(path).map_err(|e| Error::file(path, e))?;
    let mut all: u64 = 0;
    for (key, tensor) in reader.tensors() {
        let bytes = tensor.byte_len() as u64;
        all = all.saturating_add(bytes);
        if bytes > length || all > FREE.max(length.saturating_mul(4)) {
            let shape = tensor.shape();
            let reason = format!("{key}: {shape:?} is {bytes} bytes, in a file of {length}");
            return Err(Error::file(path, reason));
        }
    }
    let mut tensors = TensorMap::new();
    for (key, tensor) in reader.tensors() {
        let bytes = tensor.read().map_err(|e| Error::file(path, format!("{key}: {e}")))?;
        let dtype = burn_dtype(tensor.dtype());
        let data = TensorData::from_bytes_vec(bytes, tensor.shape(), dtype);
        tensors.insert(key.clone(), data);
    }
    Ok(tensors)
}

fn burn_dtype(dtype: pytorch_reader::DType) -> DType {
    use pytorch_reader::DType as Stored;
    match dtype {
        Stored::F64 => DType::F64,
        Stored::F32 => DType::F32,
        Stored::F16 => DType::F16,
        Stored::BF16 => DType::BF16,
        Stored::I64 => DType::I64,
        Stored::I32 => DType::I32,
        Stored::I16 => DType::I16,
        Stored::I8 => DType::I8,
        Stored::U64 => DType::U64,
        Stored::U32 => DType::U32,
        Stored::U16 => DType::U16,
        Stored::U8 | Stored::Bool => DType::U8,
    }
}
