//! Takes a checkpoint's tensors into a model, and keeps account of them.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use peft_core::{Base, FrozenWeight, Layout, PackedWeight};
use peft_kernels::{Element, PackedMatrix, laid_out};

use super::precision::Pack;
use super::{Checkpoint, Precision};
use crate::{Error, Result};

/// What became of a checkpoint's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Keys that the model has no use for.
    pub unused: Vec<String>,
    /// Modules that the checkpoint lacks and that were newly initialised: a task head.
    pub initialized: Vec<String>,
}

/// Takes tensors by the name that they have in the model, which is that of the task model's
/// checkpoint; a bare encoder's checkpoint lacks the prefix (`bert.`), and the loader knows.
pub struct Loader<'c> {
    checkpoint: &'c mut Checkpoint,
    base: Base,
    /// What to strip from a name to get the checkpoint's key.
    strip: String,
    /// What to add to it.
    add: String,
    missing: Vec<String>,
    initialized: Vec<String>,
    /// The classifier that has another number of rows in the checkpoint, and that number.
    other_head: Option<(String, usize)>,
    /// Whether values were not read.
    is_outline: bool,
    /// How many tensors were there.
    taken: usize,
}

impl<'c> Loader<'c> {
    /// A loader for a model whose encoder is named `prefix` in a task model's checkpoint (`bert.`)
    /// and `own` in this model.
    pub fn new(checkpoint: &'c mut Checkpoint, prefix: &str, own: &str, device: &Device) -> Self {
        let prefixed = checkpoint.keys().any(|key| key.starts_with(prefix));
        let add = if prefixed { prefix.to_string() } else { String::new() };
        let base = Base::new(&device.clone().without_autodiff()).with_model_prefix(own);
        let (missing, initialized, other_head) = (Vec::new(), Vec::new(), None);
        let (strip, is_outline, taken) = (own.into(), false, 0);
        Self { checkpoint, base, strip, add, missing, initialized, other_head, is_outline, taken }
    }

    /// The device of the model's tensors.
    pub fn device(&self) -> &Device {
        self.base.device()
    }

    /// Where blocks register their sites.
    pub fn base(&mut self) -> &mut Base {
        &mut self.base
    }

    fn key(&self, name: &str) -> String {
        match name.strip_prefix(&self.strip) {
            Some(rest) => format!("{}{rest}", self.add),
            None => name.to_string(),
        }
    }

    /// Whether the checkpoint has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(&self.key(name))
    }

    /// What a norm's gain and bias are called: `weight` and `bias`, or `gamma` and `beta` as in old
    /// checkpoints.
    pub fn norm_names(&self, path: &str) -> [&'static str; 2] {
        let old = self.has(&format!("{path}.gamma"));
        if old { ["gamma", "beta"] } else { ["weight", "bias"] }
    }

    /// The layers of a stack, each taken by `take`.
    ///
    /// # Errors
    /// As `take`; and at the first layer for which the checkpoint has nothing.
    pub fn layers<T>(
        &mut self,
        count: usize,
        mut take: impl FnMut(&mut Self, usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut layers = Vec::new();
        for index in 0..count {
            let before = self.taken;
            layers.push(take(self, index)?);
            if self.taken == before {
                self.complete()?;
            }
        }
        Ok(layers)
    }

    /// The vector `name`, `[d]`.
    ///
    /// # Errors
    /// If it has another shape. A missing one is noted, and an error at the next
    /// [`complete`](Self::complete).
    pub fn vector(&mut self, name: &str, d: usize) -> Result<Tensor<1>> {
        self.tensor(name, [d])
    }

    /// The matrix `name`, with this shape in the checkpoint.
    ///
    /// # Errors
    /// As [`vector`](Self::vector).
    pub fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        self.tensor(name, shape)
    }

    /// The weight `[d_in, d_out]` of a linear layer, stored in this layout, in the precision of the
    /// model.
    ///
    /// # Errors
    /// As [`vector`](Self::vector).
    pub fn weight(
        &mut self,
        name: &str,
        [d_in, d_out]: [usize; 2],
        layout: Layout,
    ) -> Result<FrozenWeight> {
        let shape = match layout {
            Layout::AsIs => [d_in, d_out],
            Layout::Transposed => [d_out, d_in],
        };
        if let Some(zero) = self.outline(name, shape)? {
            return Ok(zero.expand([d_in, d_out]).into());
        }
        if let Some(packed) = self.packed(name, shape)? {
            return Ok(FrozenWeight::Packed(packed.transpose()));
        }
        let precision = self.checkpoint.precision();
        let (pack, element) = (precision.pack_linear(), precision.element());
        let device = self.device().clone();
        let data = self.data(name, &shape)?;
        if layout == Layout::Transposed {
            let packed = pack.and_then(|pack| packed_rows(&data, pack, &device));
            return Ok(match packed {
                Some(packed) => FrozenWeight::Packed(packed.transpose()),
                None => linear_weight(data, layout, element, &device),
            });
        }
        let packed = pack.and_then(|pack| {
            let weight = Tensor::<2>::from_data(data.clone(), (&device, DType::F32));
            packed_rows(&weight.transpose().into_data(), pack, &device)
        });
        Ok(match packed {
            Some(packed) => FrozenWeight::Packed(packed.transpose()),
            None => linear_weight(data, layout, element, &device),
        })
    }

    /// The table of word embeddings `name`, in the precision of the model.
    ///
    /// # Errors
    /// As [`vector`](Self::vector).
    pub fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<FrozenWeight> {
        if let Some(zero) = self.outline(name, shape)? {
            return Ok(zero.expand(shape).into());
        }
        if let Some(packed) = self.packed(name, shape)? {
            return Ok(FrozenWeight::Packed(packed));
        }
        let data = self.data(name, &shape)?;
        Ok(self.held_table(data))
    }

    /// A table of word embeddings, in the precision of the model.
    fn held_table(&self, table: TensorData) -> FrozenWeight {
        let pack = self.checkpoint.precision().pack_table();
        match pack.and_then(|pack| packed_rows(&table, pack, self.device())) {
            Some(packed) => FrozenWeight::Packed(packed),
            None => Tensor::<2>::from_data(table, (self.device(), DType::F32)).into(),
        }
    }

    /// The same matrix as the device's products want it, where that is worth a second copy of its
    /// numbers: where they have fewer bits.
    pub fn for_products(&self, weight: FrozenWeight) -> FrozenWeight {
        let element = self.checkpoint.precision().element();
        let FrozenWeight::Dense(dense) = &weight else { return weight };
        if element == Element::F32 || self.is_outline {
            return weight;
        }
        let data = dense.clone().into_data();
        let values = data.as_slice().expect("weights are f32");
        let laid_out = laid_out(values, dense.dims(), false, element, self.device());
        laid_out.map_or(weight, FrozenWeight::Packed)
    }

    /// The zero `[1, 1]` that stands for each value of the matrix `name`, if these were not read.
    fn outline(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Tensor<2>>> {
        let key = self.key(name);
        let Some(found) = self.checkpoint.take_outline(&key) else { return Ok(None) };
        if found != shape {
            return Err(self.wrong_shape(key, found, &shape));
        }
        self.taken += 1;
        self.is_outline = true;
        Ok(Some(Tensor::zeros([1, 1], self.device())))
    }

    /// The matrix `name` as it is packed in the checkpoint, row by row, if it is and stays packed.
    fn packed(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Arc<dyn PackedWeight>>> {
        let stays = self.checkpoint.precision() == Precision::Stored;
        if !stays || !PackedMatrix::is_supported(self.device()) {
            return Ok(None);
        }
        let key = self.key(name);
        let Some(packed) = self.checkpoint.take_packed(&key) else { return Ok(None) };
        let found = packed.values_shape();
        if found != shape {
            return Err(self.wrong_shape(key, found, &shape));
        }
        self.taken += 1;
        Ok(Some(Arc::new(PackedMatrix::new(packed, self.device()))))
    }

    fn wrong_shape(&self, key: String, found: Vec<usize>, expected: &[usize]) -> Error {
        let path = self.checkpoint.path().into();
        Error::Shape { path, key, found, expected: expected.to_vec() }
    }

    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let data = self.data(name, &shape)?;
        Ok(Tensor::from_data(data, (self.device(), DType::F32)))
    }

    /// The numbers of `name`, in f32.
    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let key = self.key(name);
        let Some(data) = self.checkpoint.take(&key) else {
            // Noted rather than returned, so that the message can name all of them. What is in its
            // place is never used, and need not be as large.
            self.missing.push(key);
            return Ok(TensorData::zeros::<f32, _>(vec![1; shape.len()]));
        };
        if data.shape().to_vec() != shape {
            return Err(self.wrong_shape(key, data.shape().to_vec(), shape));
        }
        self.taken += 1;
        Ok(data.convert::<f32>())
    }

    /// Tensors of a head by name under `path`, if the checkpoint has all of them with these shapes;
    /// otherwise `None`, and the module is noted as newly initialised.
    pub fn head<const N: usize>(
        &mut self,
        path: &str,
        tensors: [(&str, &[usize]); N],
    ) -> Option<[TensorData; N]> {
        let taken = tensors.map(|(name, shape)| {
            let key = format!("{path}.{name}");
            let data = self.checkpoint.take(&key)?;
            let found = data.shape().to_vec();
            if let ([rows, found_d], [expected, d]) = (&found[..], shape)
                && found_d == d
                && rows != expected
            {
                self.other_head = Some((key, *rows));
            }
            (found == shape).then(|| data.convert::<f32>())
        });
        if taken.iter().any(Option::is_none) {
            self.initialized.push(path.to_string());
            return None;
        }
        Some(taken.map(|data| data.expect("all are there")))
    }

    /// The key of a head's matrix that the checkpoint has with another number of rows, and that
    /// number.
    pub fn other_head(&self) -> Option<(&str, usize)> {
        self.other_head.as_ref().map(|(key, rows)| (key.as_str(), *rows))
    }

    /// The table of words `[words, d]` of a head without a bias, as [`head`](Self::head) has it, in
    /// as many bits as the model is to hold it.
    pub fn head_table(&mut self, path: &str, shape: [usize; 2]) -> Option<FrozenWeight> {
        if let Ok(Some(zero)) = self.outline(&format!("{path}.weight"), shape) {
            return Some(zero.expand(shape).into());
        }
        if let Ok(Some(packed)) = self.packed(&format!("{path}.weight"), shape) {
            return Some(FrozenWeight::Packed(packed));
        }
        let [table] = self.head(path, [("weight", &shape)])?;
        Some(self.held_table(table))
    }

    /// Checks that no tensor was missing so far: sizes that follow from the configuration are then
    /// those of tensors, and new heads may have them.
    ///
    /// # Errors
    /// If one was; the first ones are named.
    pub fn complete(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let mut keys = self.missing[..self.missing.len().min(6)].join(", ");
        if self.missing.len() > 6 {
            keys.push_str(&format!(" and {} more", self.missing.len() - 6));
        }
        let found: Vec<&str> = self.checkpoint.keys().take(3).collect();
        let found = if found.is_empty() { "nothing else".into() } else { found.join(", ") };
        let path = self.checkpoint.path().into();
        Err(Error::MissingKeys { path, keys, found })
    }

    /// Ends loading.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub fn finish(self) -> Result<(Base, LoadReport)> {
        self.complete()?;
        let unused = self.checkpoint.keys().map(String::from).collect();
        Ok((self.base, LoadReport { unused, initialized: self.initialized }))
    }
}

/// The rows of a matrix packed; `None` where they are not made of whole blocks.
fn packed_rows(rows: &TensorData, pack: Pack, device: &Device) -> Option<Arc<dyn PackedWeight>> {
    let packed = pack(rows.shape().to_vec(), rows.as_slice().expect("weights are f32"))?;
    Some(Arc::new(PackedMatrix::new(packed, device)))
}

/// The weight of a linear layer that is not packed, as the device's products want it.
fn linear_weight(
    data: TensorData,
    layout: Layout,
    element: Element,
    device: &Device,
) -> FrozenWeight {
    let shape = [data.shape()[0], data.shape()[1]];
    let values = data.as_slice().expect("weights are f32");
    match laid_out(values, shape, layout == Layout::Transposed, element, device) {
        Some(laid_out) => FrozenWeight::Packed(laid_out),
        None if layout == Layout::Transposed => transposed(data, device).into(),
        None => Tensor::<2>::from_data(data, (device, DType::F32)).into(),
    }
}

/// A weight `[d_out, d_in]` of a checkpoint as `[d_in, d_out]`.
pub fn transposed(weight: TensorData, device: &Device) -> Tensor<2> {
    row_major(Tensor::<2>::from_data(weight, (device, DType::F32)).transpose())
}

/// The same values, laid out anew, as products want them.
fn row_major(tensor: Tensor<2>) -> Tensor<2> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}
