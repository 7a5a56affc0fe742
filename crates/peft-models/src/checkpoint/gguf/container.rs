//! A GGUF file: header, metadata, tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::read::{self, Parts};
use peft_kernels::{BlockFormat, PackedTensor};

use super::types;
use crate::checkpoint::is_there;
use crate::{Error, Result};

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// What tensors begin at multiples of, where the file says nothing else.
const ALIGNMENT: u64 = 32;

/// A GGUF file (version 2 or 3, little-endian): its header, and access to its tensors, each of
/// which is read when it is asked for. Names and the order of rows are the file's own.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    metadata: Map<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor is in a file, and how it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its numbers are packed.
    pub format: BlockFormat,
    /// Its shape: `[d_out, d_in]`. (The file has it the other way round.)
    pub shape: Vec<usize>,
    /// Where it begins, from the beginning of the file.
    offset: u64,
    /// Its size in bytes.
    bytes: u64,
}

impl Gguf {
    /// Opens the `.gguf` file of a directory, if it has one; or `path` itself, if it is one.
    ///
    /// # Errors
    /// As [`open`](Self::open), or if there are several, of which none is meant more than the
    /// others.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
        if is_gguf(path) && is_there(path)? && !path.is_dir() {
            return Self::open(path).map(Some);
        }
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            // What is no directory has no files.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::file(path, e)),
        };
        let entries = entries.collect::<std::io::Result<Vec<_>>>();
        let entries = entries.map_err(|e| Error::file(path, e))?.into_iter();
        let files = entries.map(|entry| entry.path()).filter(|path| is_gguf(path));
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        if files.len() > 1 {
            let names = files.iter().filter_map(|file| file.file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
            let reason = format!("several .gguf files, name the one meant: {}", names.join(", "));
            return Err(Error::file(path, reason));
        }
        files.pop().map(|path| Self::open(&path)).transpose()
    }

    /// Reads the header.
    ///
    /// # Errors
    /// If the file is missing, cut off or broken, is one part of several, or has a tensor of a type
    /// that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::file(path, reason);
        let file = File::open(path).map_err(|e| Error::file(path, e))?;
        let length = file.metadata().map_err(|e| Error::file(path, e))?.len();
        let mut parts = Parts::new(BufReader::new(&file), length);
        let tensor_count = check_head(&mut parts).map_err(broken)?;
        let metadata = read_metadata(&mut parts).map_err(broken)?;
        let mut infos = Vec::new();
        for i in 0..tensor_count {
            let info = RawInfo::read(&mut parts);
            infos.push(info.map_err(|e| broken(format!("tensor {i} of {tensor_count}: {e}")))?);
        }
        let header = parts.position();
        let mut gguf = Self { path: path.into(), file, metadata, tensors: BTreeMap::new() };
        if let Some(count) = gguf.get::<u64>("split.count")?.filter(|count| *count > 1) {
            let supported = "1: join the parts with llama.cpp's llama-gguf-split --merge";
            return Err(gguf.unsupported("split.count", count, supported));
        }
        gguf.tensors = gguf.placed(infos, header, length)?;
        Ok(gguf)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All metadata, as JSON. A single-precision number is the shortest one that rounds to it.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The metadata of a key, if there is any.
    ///
    /// # Errors
    /// If it has another type.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let value = self.metadata.get(key).map(T::deserialize).transpose();
        value.map_err(|e| Error::file(&self.path, format!("{key}: {e}")))
    }

    /// The metadata of a key that must be there.
    ///
    /// # Errors
    /// If it is not, or has another type.
    pub fn require<'a, T: Deserialize<'a>>(&'a self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| Error::file(&self.path, format!("no {key} in its metadata")))
    }

    /// The template that makes one text of a conversation, in Jinja's language.
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata.get("tokenizer.chat_template").and_then(Value::as_str)
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// If there is none of this name, or the file cannot be read.
    pub fn read(&mut self, name: &str) -> Result<PackedTensor> {
        let failed = |reason: &dyn std::fmt::Display| {
            Error::file(&self.path, format!("tensor {name}: {reason}"))
        };
        let info = self.tensors.get(name).ok_or_else(|| failed(&"not there"))?;
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(info.offset)).map_err(|e| failed(&e))?;
        (&self.file).take(info.bytes).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
        PackedTensor::new(info.format, info.shape.clone(), bytes)
            .ok_or_else(|| failed(&"the file was cut off since it was opened"))
    }

    /// An error about a value that is not supported.
    pub(super) fn unsupported(
        &self,
        field: impl Into<String>,
        value: impl ToString,
        supported: impl Into<String>,
    ) -> Error {
        Error::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            value: value.to_string(),
            supported: supported.into(),
        }
    }

    /// Checks what the header says of the tensors against the size of the file; `header` is where
    /// the header ends.
    fn placed(
        &self,
        infos: Vec<RawInfo>,
        header: u64,
        length: u64,
    ) -> Result<BTreeMap<String, TensorInfo>> {
        let broken = |reason: String| Error::file(&self.path, reason);
        let alignment = self.get("general.alignment")?.unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(broken(format!("general.alignment = {alignment}, not a power of two")));
        }
        let start = header.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        let mut total = 0_u64;
        for RawInfo { name, dimensions, kind, offset } in infos {
            let format = types::format_of(kind).map_err(|kind| {
                self.unsupported(format!("the type of {name}"), kind, types::format_names())
            })?;
            let outside = || {
                let end = format!("the file ends at {length} and the tensors begin at {start}");
                broken(format!("tensor {name}: {dimensions:?} at {offset} is not there: {end}"))
            };
            if dimensions.contains(&0) {
                return Err(broken(format!("tensor {name}: it is empty, {dimensions:?}")));
            }
            let numbers = dimensions.iter().try_fold(1_u64, |n, d| n.checked_mul(*d));
            let row = dimensions.first().copied().unwrap_or(1);
            if !row.is_multiple_of(format.values() as u64) {
                let values = format.values();
                let reason = format!("rows of {row} are not whole blocks of {values} ({format:?})");
                return Err(broken(format!("tensor {name}: {reason}")));
            }
            let blocks = numbers.ok_or_else(outside)? / format.values() as u64;
            let bytes = blocks.checked_mul(format.bytes() as u64).ok_or_else(outside)?;
            let end = start.checked_add(offset).and_then(|begin| begin.checked_add(bytes));
            // Together they must fit too: no part of the file is read twice.
            total = total.checked_add(bytes).ok_or_else(outside)?;
            if end.is_none_or(|end| end > length) || total > length {
                return Err(outside());
            }
            if !offset.is_multiple_of(alignment) {
                let reason = format!("its offset {offset} is no multiple of {alignment}");
                return Err(broken(format!("tensor {name}: {reason}")));
            }
            let shape = dimensions.iter().rev().map(|d| *d as usize).collect();
            let info = TensorInfo { format, shape, offset: start + offset, bytes };
            if tensors.contains_key(&name) {
                return Err(broken(format!("tensor {name} is there twice")));
            }
            tensors.insert(name, info);
        }
        Ok(tensors)
    }
}

/// What the header says of a tensor.
struct RawInfo {
    name: String,
    /// Columns first.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl RawInfo {
    fn read(parts: &mut Parts<impl Read>) -> read::Result<Self> {
        let name = parts.string()?;
        let count = parts.u32()?;
        if count > MAX_DIMENSIONS {
            return Err(format!("{name} has {count} dimensions, {MAX_DIMENSIONS} are the most"));
        }
        let dimensions = (0..count).map(|_| parts.u64()).collect::<read::Result<_>>()?;
        Ok(Self { name, dimensions, kind: parts.u32()?, offset: parts.u64()? })
    }
}

/// Reads the first parts up to the number of tensors, which is returned.
fn check_head(parts: &mut Parts<impl Read>) -> read::Result<u64> {
    if &parts.magic()? != b"GGUF" {
        return Err("not a GGUF file: it does not begin with GGUF".into());
    }
    let version = parts.u32()?;
    if version & 0xffff == 0 {
        return Err("its bytes are in big-endian order; supported: little-endian".into());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version} is not supported; supported: 2, 3"));
    }
    parts.u64()
}

fn read_metadata(parts: &mut Parts<impl Read>) -> read::Result<Map<String, Value>> {
    let count = parts.u64()?;
    let mut metadata = Map::new();
    for i in 0..count {
        let key = parts.string().map_err(|e| format!("metadata {i} of {count}: {e}"))?;
        let value = parts.value().map_err(|e| format!("{key}: {e}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is there twice in its metadata"));
        }
    }
    Ok(metadata)
}
