//! Named tensors in safetensors files.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use peft_core::TensorMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::write_atomically;
use crate::{Error, Result};

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// If the file is missing or truncated. A tensor of a type that Burn lacks, such as F8_E4M3, is
/// passed over with a warning.
pub fn read_safetensors(path: &Path) -> Result<TensorMap> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("not a whole safetensors file: {e}")))?;
    let mut tensors = TensorMap::new();
    for (key, view) in file.iter() {
        let Some(dtype) = burn_dtype(view.dtype()) else {
            let (path, found) = (path.display(), view.dtype());
            tracing::warn!("{path}: {key} is not read: its type {found:?} is not supported");
            continue;
        };
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape(), dtype);
        tensors.insert(key.to_string(), data);
    }
    Ok(tensors)
}

fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        _ => return None,
    })
}

/// Writes tensors as PyTorch libraries expect them (`format: pt`), whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &TensorMap) -> Result<()> {
    let views = tensors.iter().map(|(key, data)| {
        let dtype = match data.dtype() {
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::I16 => Dtype::I16,
            DType::I8 => Dtype::I8,
            DType::U64 => Dtype::U64,
            DType::U32 => Dtype::U32,
            DType::U16 => Dtype::U16,
            DType::U8 => Dtype::U8,
            DType::F32 => Dtype::F32,
            other => return Err(Error::file(path, format!("{key}: cannot store {other:?}"))),
        };
        let view = TensorView::new(dtype, data.shape().to_vec(), data.as_bytes())
            .map_err(|e| Error::file(path, format!("{key}: {e}")))?;
        Ok((key.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(path, e))?;
    write_atomically(path, |file| file.write_all(&bytes))
}
