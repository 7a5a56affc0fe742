//! Named tensors in safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use peft_core::TensorMap;
use safetensors::tensor::{Dtype, Metadata, TensorView};

use super::write_atomically;
use crate::{Error, Result};

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// If the file is missing or truncated. A tensor of a type that Burn lacks, such as F8_E4M3, is
/// passed over with a warning.
pub fn read_safetensors(path: &Path) -> Result<TensorMap> {
    SafetensorsFile::open(path)?.into_tensors()
}

/// What is read at a time, of what is smaller.
const BUFFER: usize = 1 << 16;

/// A safetensors file of which the header was read.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    /// Where the first tensor begins. Small tensors are read several at a time.
    file: BufReader<File>,
    header: Metadata,
}

impl SafetensorsFile {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file is missing or broken, or does not hold what its header says.
    pub fn open(path: &Path) -> Result<Self> {
        /// What stands before the header: its length.
        const LENGTH: u64 = size_of::<u64>() as u64;
        let failed = |e: std::io::Error| Error::file(path, e);
        let broken =
            |reason: &str| Error::file(path, format!("not a whole safetensors file: {reason}"));
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(BUFFER, file);
        let mut length = [0; LENGTH as usize];
        // Of what is no file, such as a directory, the system says what it is.
        match file.read_exact(&mut length) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                return Err(broken("there is no header"));
            }
            read => read.map_err(failed)?,
        }
        let length = u64::from_le_bytes(length);
        if length > size.saturating_sub(LENGTH) {
            return Err(broken("it ends in its header"));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(failed)?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| broken(&format!("its header: {e}")))?;
        if (LENGTH + length).checked_add(header.data_len() as u64) != Some(size) {
            return Err(broken("it has other values than its header says"));
        }
        Ok(Self { path: path.into(), file, header })
    }

    /// The shapes of all tensors, by key.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.header.tensors().into_iter();
        tensors.map(|(key, info)| (key, info.shape.clone())).collect()
    }

    /// The tensors. Each is read into its own memory, so that nothing is held twice.
    ///
    /// # Errors
    /// As [`read_safetensors`].
    pub fn into_tensors(self) -> Result<TensorMap> {
        let Self { path, mut file, header } = self;
        let failed = |e: std::io::Error| Error::file(&path, e);
        let mut tensors = TensorMap::new();
        // In the order in which they lie in the file.
        for key in header.offset_keys() {
            let Some(info) = header.info(&key) else { continue };
            let bytes = info.data_offsets.1 - info.data_offsets.0;
            let Some(dtype) = burn_dtype(info.dtype) else {
                let (path, found) = (path.display(), info.dtype);
                tracing::warn!("{path}: {key} is not read: its type {found:?} is not supported");
                file.seek_relative(bytes as i64).map_err(failed)?;
                continue;
            };
            let mut values = Vec::with_capacity(bytes);
            file.by_ref().take(bytes as u64).read_to_end(&mut values).map_err(failed)?;
            if values.len() < bytes {
                return Err(Error::file(&path, format!("ends in {key}: it got shorter")));
            }
            let data = TensorData::from_bytes_vec(values, info.shape.clone(), dtype);
            tensors.insert(key, data);
        }
        Ok(tensors)
    }
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
