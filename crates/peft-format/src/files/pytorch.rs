//! Named tensors in PyTorch's own files.

use std::path::Path;

use burn::store::pytorch_reader::{self, PytorchReader};
use burn::tensor::{DType, TensorData};
use peft_core::TensorMap;

use crate::{Error, Result};

/// Reads every tensor of a PyTorch file (`torch.save` of a state dict).
///
/// # Errors
/// If the file is missing, truncated, or holds a type other than F64, F32, F16, BF16, I64, I32.
pub fn read_pytorch(path: &Path) -> Result<TensorMap> {
    let reader = PytorchReader::new(path).map_err(|e| Error::file(path, e))?;
    let mut tensors = TensorMap::new();
    for (key, tensor) in reader.tensors() {
        let bytes = tensor.read().map_err(|e| Error::file(path, format!("{key}: {e}")))?;
        let dtype = burn_dtype(tensor.dtype()).ok_or_else(|| {
            Error::file(path, format!("{key}: type {:?} is not supported", tensor.dtype()))
        })?;
        let data = TensorData::from_bytes_vec(bytes, tensor.shape(), dtype);
        tensors.insert(key.clone(), data);
    }
    Ok(tensors)
}

fn burn_dtype(dtype: pytorch_reader::DType) -> Option<DType> {
    use pytorch_reader::DType as Stored;
    Some(match dtype {
        Stored::F64 => DType::F64,
        Stored::F32 => DType::F32,
        Stored::F16 => DType::F16,
        Stored::BF16 => DType::BF16,
        Stored::I64 => DType::I64,
        Stored::I32 => DType::I32,
        _ => return None,
    })
}
