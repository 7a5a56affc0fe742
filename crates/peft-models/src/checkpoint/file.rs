//! The tensors of a model's directory, in any of the forms that it may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use peft_core::TensorMap;
use peft_format::{read_pytorch, read_safetensors};
use peft_kernels::PackedTensor;

use super::gguf::{self, Gguf};
use super::{Precision, ShardIndex, is_there, shapes};
use crate::{Error, Result};

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
    /// Zeros of this shape, in the place of values that were not read.
    Zeros(Vec<usize>),
}

/// Tensors by key.
type Tensors = BTreeMap<String, Stored>;

/// How files are read.
struct Reader {
    safetensors: fn(&Path) -> Result<Tensors>,
    pytorch: fn(&Path) -> Result<Tensors>,
    gguf: fn(&mut Gguf) -> Result<Tensors>,
}

/// Their values.
const VALUES: Reader = Reader {
    safetensors: |path| Ok(stored(read_safetensors(path)?, Stored::Plain)),
    pytorch: |path| Ok(stored(read_pytorch(path)?, Stored::Plain)),
    gguf: |gguf| Ok(stored(gguf::tensors(gguf)?, Stored::Packed)),
};

/// Their shapes.
const SHAPES: Reader = Reader {
    safetensors: |path| Ok(stored(shapes::of_safetensors(path)?, Stored::Zeros)),
    pytorch: |path| Ok(stored(shapes::of_pytorch(path)?, Stored::Zeros)),
    gguf: |gguf| Ok(stored(gguf::shapes(gguf)?, Stored::Zeros)),
};

fn stored<T>(tensors: BTreeMap<String, T>, of: fn(T) -> Stored) -> Tensors {
    tensors.into_iter().map(|(key, tensor)| (key, of(tensor))).collect()
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
        Self::read(directory, &VALUES)
    }

    /// The same with zeros for all values, which are not read, and take no memory: for what depends
    /// on shapes alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn outline(directory: &Path) -> Result<Self> {
        Self::read(directory, &SHAPES)
    }

    fn read(directory: &Path, reader: &Reader) -> Result<Self> {
        let forms = [
            ("model.safetensors", reader.safetensors),
            ("model.safetensors.index.json", reader.safetensors),
            ("pytorch_model.bin", reader.pytorch),
            ("pytorch_model.bin.index.json", reader.pytorch),
        ];
        for (name, read) in forms {
            let path = directory.join(name);
            if is_there(&path)? {
                let tensors = match name.ends_with(".index.json") {
                    true => ShardIndex::load(&path)?.tensors(read)?,
                    false => read(&path)?,
                };
                return Ok(Self { path, tensors, precision: Precision::Stored });
            }
        }
        if let Some(mut gguf) = Gguf::find(directory)? {
            let tensors = (reader.gguf)(&mut gguf)?;
            return Ok(Self { path: gguf.path().into(), tensors, precision: Precision::Stored });
        }
        let names = forms.map(|(name, _)| name).join(", ");
        let reason = format!("no checkpoint: none of {names}, *.gguf is there");
        Err(Error::file(directory, reason))
    }

    /// A checkpoint of tensors in memory; `path` is for messages.
    pub fn from_tensors(path: impl Into<PathBuf>, tensors: TensorMap) -> Self {
        let tensors = stored(tensors, Stored::Plain);
        Self { path: path.into(), tensors, precision: Precision::Stored }
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
            Stored::Plain(_) | Stored::Zeros(_) => None,
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
            Stored::Zeros(shape) => Some(TensorData::zeros::<f32, _>(shape)),
        }
    }

    /// Takes a tensor as it is packed; `None` if it is not there, or not packed.
    pub fn take_packed(&mut self, key: &str) -> Option<PackedTensor> {
        match self.tensors.remove(key)? {
            Stored::Packed(tensor) => Some(tensor),
            other => {
                self.tensors.insert(key.into(), other);
                None
            }
        }
    }

    /// Takes the shape of a tensor whose values were not read; `None` if it is not there, or they
    /// were.
    pub(super) fn take_outline(&mut self, key: &str) -> Option<Vec<usize>> {
        match self.tensors.remove(key)? {
            Stored::Zeros(shape) => Some(shape),
            other => {
                self.tensors.insert(key.into(), other);
                None
            }
        }
    }

    /// The keys that nobody has taken.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}
