//! The tensors of a model's directory, in any of the forms that it may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use peft_core::TensorMap;
use peft_format::{read_pytorch, read_safetensors};
use peft_kernels::PackedTensor;

use super::gguf::{self, Gguf};
use super::{Precision, ShardIndex, is_there};
use crate::{Error, Result};

/// Reads the tensors of one file.
type ReadTensors = fn(&Path) -> Result<TensorMap>;

/// The tensors of a checkpoint, each there until it is taken.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    precision: Precision,
}

/// A tensor that nobody has taken.
#[derive(Debug)]
enum Stored {
    Plain(TensorData),
    Packed(PackedTensor),
}

impl Checkpoint {
    /// Reads `model.safetensors`, its shards (`model.safetensors.index.json`),
    /// `pytorch_model.bin`, its shards, or a `.gguf` file, whichever is there first. Tensors have
    /// Hugging Face's names and layouts in all of them; those of a `.gguf` file are held as they
    /// are packed until they are taken.
    ///
    /// # Errors
    /// If none is there, or one is broken.
    pub fn open(directory: &Path) -> Result<Self> {
        let forms: [(&str, ReadTensors); 4] = [
            ("model.safetensors", |path| Ok(read_safetensors(path)?)),
            ("model.safetensors.index.json", |path| {
                ShardIndex::load(path)?.tensors(|path| Ok(read_safetensors(path)?))
            }),
            ("pytorch_model.bin", |path| Ok(read_pytorch(path)?)),
            ("pytorch_model.bin.index.json", |path| {
                ShardIndex::load(path)?.tensors(|path| Ok(read_pytorch(path)?))
            }),
        ];
        for (name, read) in forms {
            let path = directory.join(name);
            if is_there(&path)? {
                let tensors = read(&path)?;
                return Ok(Self::from_tensors(path, tensors));
            }
        }
        if let Some(mut gguf) = Gguf::find(directory)? {
            let tensors = gguf::tensors(&mut gguf)?;
            let tensors = tensors.into_iter().map(|(key, data)| (key, Stored::Packed(data)));
            let path = gguf.path().into();
            return Ok(Self { path, tensors: tensors.collect(), precision: Precision::Stored });
        }
        let names = forms.map(|(name, _)| name).join(", ");
        let reason = format!("no checkpoint: none of {names}, *.gguf is there");
        Err(Error::file(directory, reason))
    }

    /// A checkpoint of tensors in memory; `path` is for messages.
    pub fn from_tensors(path: impl Into<PathBuf>, tensors: TensorMap) -> Self {
        let tensors = tensors.into_iter().map(|(key, data)| (key, Stored::Plain(data)));
        Self { path: path.into(), tensors: tensors.collect(), precision: Precision::Stored }
    }

    /// With weights in this precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The precision in which a model holds its weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of packed tensors that nobody has taken, and those that they come to in f32.
    pub fn packed_bytes(&self) -> [usize; 2] {
        let packed = self.tensors.values().filter_map(|stored| match stored {
            Stored::Packed(tensor) => Some(tensor),
            Stored::Plain(_) => None,
        });
        packed.fold([0, 0], |[packed, plain], tensor| {
            let values: usize = tensor.shape().iter().product();
            [packed + tensor.bytes().len(), plain + 4 * values]
        })
    }

    /// Whether there is still a tensor with this key.
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Takes a tensor; a packed one is unpacked to f32.
    pub fn take(&mut self, key: &str) -> Option<TensorData> {
        match self.tensors.remove(key)? {
            Stored::Plain(data) => Some(data),
            Stored::Packed(tensor) => Some(tensor.values()),
        }
    }

    /// Takes a tensor as it is packed; `None` if it is not there, or not packed.
    pub fn take_packed(&mut self, key: &str) -> Option<PackedTensor> {
        match self.tensors.remove(key)? {
            Stored::Packed(tensor) => Some(tensor),
            plain => {
                self.tensors.insert(key.into(), plain);
                None
            }
        }
    }

    /// The keys that nobody has taken.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}
