//! One description of a method's tensors that serves writing, reading and checking.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Param;
use burn::tensor::{DType, Int, Tensor, TensorData};
use serde::Serialize;

use crate::{Site, SiteKind};

/// Tensors by key.
pub type TensorMap = BTreeMap<String, TensorData>;

/// How a parameter lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in memory.
    AsIs,
    /// Its last two axes swapped: PyTorch's `Linear` holds `[d_out, d_in]`, Burn's
    /// `[d_in, d_out]`.
    Transposed,
}

/// Whose layout a file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dialect {
    /// HF PEFT's: `base_model.model.<path>.<name>`.
    #[default]
    Peft,
    /// HF PEFT's for prompts and prefixes, which leaves out `model.`: `base_model.<path>.<name>`.
    PeftPrompt,
    /// adapter-hub/adapters', whose keys hold the adapter's name.
    Adapters {
        /// The name.
        adapter: String,
        /// What all keys begin with, under a class that has the base model under a name of its
        /// own.
        prefix: String,
    },
}

impl Dialect {
    /// adapter-hub/adapters', for an adapter of this name.
    pub fn adapters(name: impl Into<String>) -> Self {
        Self::Adapters { adapter: name.into(), prefix: String::new() }
    }
}

/// The key of a tensor in each [`Dialect`], with the shape that it has there.
///
/// ```
/// # use peft_core::Key;
/// let key = Key::from("base_model.model.query.lora_A.weight").adapters("query.loras.{}.lora_A");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    peft: String,
    adapters: String,
    peft_shape: Option<Vec<usize>>,
    adapters_shape: Option<Vec<usize>>,
}

impl<S: Into<String>> From<S> for Key {
    /// HF PEFT's key; `adapters`' is the same without `base_model.model.`.
    fn from(peft: S) -> Self {
        let peft = peft.into();
        let adapters = peft.strip_prefix(KEY_PREFIX).unwrap_or(&peft).to_string();
        Self { peft, adapters, peft_shape: None, adapters_shape: None }
    }
}

impl Key {
    /// With `adapters`' key, in which `{}` stands for the adapter's name.
    pub fn adapters(mut self, key: impl Into<String>) -> Self {
        self.adapters = key.into();
        self
    }

    /// With another shape in HF PEFT's file, of as many values.
    pub fn peft_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.peft_shape = Some(shape.into());
        self
    }

    /// With another shape in `adapters`' file, of as many values.
    pub fn adapters_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.adapters_shape = Some(shape.into());
        self
    }

    fn in_dialect(self, dialect: &Dialect) -> (String, Option<Vec<usize>>) {
        match dialect {
            Dialect::Peft => (self.peft, self.peft_shape),
            Dialect::PeftPrompt => match self.peft.strip_prefix(KEY_PREFIX) {
                Some(rest) => (format!("base_model.{rest}"), self.peft_shape),
                None => (self.peft, self.peft_shape),
            },
            Dialect::Adapters { adapter, prefix } => {
                (format!("{prefix}{}", self.adapters.replace("{}", adapter)), self.adapters_shape)
            }
        }
    }
}

/// A tensor that an adapter file should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// Its key.
    pub key: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Whether it is trained.
    pub trainable: bool,
}

impl TensorSpec {
    /// The number of values.
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Values of some entries of a weight, in their order, as a file has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// The number of each entry in the weight.
    pub places: Vec<i64>,
    /// The value of each.
    pub values: Vec<f32>,
}

/// What is wrong with one key of an adapter file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum KeyProblem {
    /// The method needs it and the file lacks it.
    Missing {
        /// The key.
        key: String,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// The file has it and the method does not know it.
    Unexpected {
        /// The key.
        key: String,
        /// The shape that it has.
        found: Vec<usize>,
    },
    /// Some of its whole numbers are not below a bound, or below zero.
    OutOfBounds {
        /// The key.
        key: String,
        /// The bound.
        below: usize,
    },
    /// Some of its values are infinite, or no numbers.
    NotFinite {
        /// The key.
        key: String,
    },
    /// It has another shape.
    Shape {
        /// The key.
        key: String,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { key, expected } => write!(f, "missing {key} {expected:?}"),
            Self::Unexpected { key, found } => write!(f, "unexpected {key} {found:?}"),
            Self::OutOfBounds { key, below } => {
                write!(f, "{key} has values that are not from 0 to {}", below.saturating_sub(1))
            }
            Self::NotFinite { key } => write!(f, "{key} has values that are not finite"),
            Self::Shape { key, expected, found } => {
                write!(f, "{key} has shape {found:?}, should have {expected:?}")
            }
        }
    }
}

/// The adapter file from a method's side: it names each tensor with its key, and the same names
/// write the file, read it, or list what it should hold.
///
/// There may be a second file beside it, [of what tensors started from](Self::of_start). An exchange
/// is with one of the two, and passes over what is in the other.
///
/// ```
/// # use burn::module::Param; use burn::tensor::Tensor;
/// # use peft_core::{Exchange, Layout, TensorMap};
/// # let device = Default::default();
/// let mut lora_a = Param::from_tensor(Tensor::<2>::ones([8, 2], &device));
/// let mut file = TensorMap::new();
/// Exchange::write(&mut file).param("q.lora_A.weight", &mut lora_a, Layout::Transposed);
/// assert_eq!(file["q.lora_A.weight"].shape().to_vec(), [2, 8]);
/// ```
pub struct Exchange<'f> {
    mode: Mode<'f>,
    dialect: Dialect,
    part: Part,
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Values,
    Start,
}

enum Mode<'f> {
    Write(&'f mut TensorMap),
    Read(&'f mut TensorMap, Vec<KeyProblem>),
    Describe(Vec<TensorSpec>),
}

impl<'f> Exchange<'f> {
    /// Collects the tensors into `file`.
    pub fn write(file: &'f mut TensorMap) -> Self {
        Self::new(Mode::Write(file))
    }

    /// Takes the tensors out of `file` into the parameters.
    pub fn read(file: &'f mut TensorMap) -> Self {
        Self::new(Mode::Read(file, Vec::new()))
    }

    /// Lists the tensors.
    pub fn describe() -> Self {
        Self::new(Mode::Describe(Vec::new()))
    }

    fn new(mode: Mode<'f>) -> Self {
        Self { mode, dialect: Dialect::Peft, part: Part::Values }
    }

    /// The same for a file in this layout.
    pub fn in_dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// The same for the file of what tensors started from.
    pub fn of_start(self) -> Self {
        Self { part: Part::Start, ..self }
    }

    /// One tensor and its key.
    ///
    /// # Panics
    /// If another tensor was written under the same key: one of the two would be lost.
    pub fn param<const D: usize>(
        &mut self,
        key: impl Into<Key>,
        param: &mut Param<Tensor<D>>,
        layout: Layout,
    ) {
        self.tensor(Part::Values, key.into(), param, layout);
    }

    /// What the tensor of this key started from, where the method's function depends on it. Files of
    /// the reference libraries have no place for that: it is in a file of its own.
    ///
    /// # Panics
    /// As [`param`](Self::param).
    pub fn start<const D: usize>(
        &mut self,
        key: impl Into<Key>,
        param: &mut Param<Tensor<D>>,
        layout: Layout,
    ) {
        self.tensor(Part::Start, key.into(), param, layout);
    }

    fn tensor<const D: usize>(
        &mut self,
        part: Part,
        key: Key,
        param: &mut Param<Tensor<D>>,
        layout: Layout,
    ) {
        if part != self.part {
            return;
        }
        let (key, in_file) = key.in_dialect(&self.dialect);
        let mut own = param.lazy_shape().to_vec();
        if layout == Layout::Transposed {
            own.swap(D - 2, D - 1);
        }
        let shape = in_file.unwrap_or_else(|| own.clone());
        debug_assert_eq!(shape.iter().product::<usize>(), own.iter().product::<usize>(), "{key}");
        match &mut self.mode {
            Mode::Write(file) => {
                let value = oriented(param.base(), layout).into_data().convert::<f32>();
                let old = file.insert(key.clone(), reshaped(value, shape));
                assert!(old.is_none(), "two tensors have the key {key}");
            }
            Mode::Describe(specs) => {
                specs.push(TensorSpec { key, shape, trainable: param.is_require_grad() });
            }
            Mode::Read(file, problems) => match file.remove(&key) {
                None => problems.push(KeyProblem::Missing { key, expected: shape }),
                Some(data) if data.shape().to_vec() != shape => problems.push(KeyProblem::Shape {
                    key,
                    expected: shape,
                    found: data.shape().to_vec(),
                }),
                Some(data) => {
                    let (id, old, mapper) = param.clone().consume();
                    let device = old.device();
                    // It lies in memory as a parameter that was trained does: the layout decides
                    // the order in which products are summed.
                    let data = in_memory(data, own, layout);
                    let new = Tensor::<D>::from_data(data, (&device, DType::F32));
                    let new = new.set_require_grad(param.is_require_grad());
                    *param = Param::from_mapped_value(id, new, mapper);
                }
            },
        }
    }

    /// Places in a weight, whole numbers: each of `bounds` is what as many of them, in their order, are
    /// below.
    ///
    /// # Panics
    /// As [`param`](Self::param).
    pub fn places<const D: usize>(
        &mut self,
        key: impl Into<Key>,
        param: &mut Param<Tensor<D, Int>>,
        bounds: &[usize],
    ) {
        if self.part != Part::Values {
            return;
        }
        let (key, _) = key.into().in_dialect(&self.dialect);
        let shape = param.lazy_shape().to_vec();
        match &mut self.mode {
            Mode::Write(file) => {
                let old = file.insert(key.clone(), param.val().into_data().convert::<i32>());
                assert!(old.is_none(), "two tensors have the key {key}");
            }
            Mode::Describe(specs) => specs.push(TensorSpec { key, shape, trainable: false }),
            Mode::Read(file, problems) => match file.remove(&key) {
                None => problems.push(KeyProblem::Missing { key, expected: shape }),
                Some(data) if data.shape().to_vec() != shape => {
                    let found = data.shape().to_vec();
                    problems.push(KeyProblem::Shape { key, expected: shape, found });
                }
                Some(data) => {
                    let values: Vec<i64> =
                        data.convert::<i64>().try_into_vec().expect("converted before");
                    let of_each = values.chunks((values.len() / bounds.len()).max(1)).zip(bounds);
                    let is_beyond = |(values, below): &(&[i64], &usize)| {
                        values.iter().any(|v| usize::try_from(*v).map_or(true, |v| v >= **below))
                    };
                    let beyond = of_each.into_iter().find(is_beyond);
                    if let Some((_, &below)) = beyond {
                        problems.push(KeyProblem::OutOfBounds { key, below });
                        return;
                    }
                    let device = param.val().device();
                    let places = Tensor::from_data(TensorData::new(values, shape), &device);
                    *param = Param::initialized(param.id, places);
                }
            },
        }
    }

    /// Entries of a weight of `size` numbers, as many as there are, or as the file has: their values and
    /// their places, each under a key, of no entries too. Returns whether they were read.
    ///
    /// # Panics
    /// As [`param`](Self::param).
    pub fn entries(
        &mut self,
        [values_key, places_key]: [String; 2],
        entries: &mut Entries,
        trainable: bool,
        size: usize,
    ) -> bool {
        if self.part != Part::Values {
            return false;
        }
        let keys = [values_key, places_key].map(|key| Key::from(key).in_dialect(&self.dialect).0);
        let shape = vec![entries.values.len()];
        match &mut self.mode {
            Mode::Write(file) => {
                let values = TensorData::new(entries.values.clone(), shape.clone());
                let places = TensorData::new(entries.places.clone(), shape).convert::<i32>();
                for (key, data) in keys.into_iter().zip([values, places]) {
                    assert!(!file.contains_key(&key), "two tensors have the key {key}");
                    file.insert(key, data);
                }
                false
            }
            Mode::Describe(specs) => {
                let spec = |(key, trainable)| TensorSpec { key, shape: shape.clone(), trainable };
                specs.extend(keys.into_iter().zip([trainable, false]).map(spec));
                false
            }
            Mode::Read(file, problems) => match entries_of(file, keys, shape, size) {
                Ok(read) => {
                    *entries = read;
                    true
                }
                Err(found) => {
                    problems.extend(found);
                    false
                }
            },
        }
    }

    /// A second key of a tensor, for a library that holds what is tied under both names: it is
    /// written, and nothing is missing where a file lacks it.
    pub fn repeated<const D: usize>(
        &mut self,
        key: impl Into<Key>,
        param: &mut Param<Tensor<D>>,
        layout: Layout,
    ) {
        match &mut self.mode {
            Mode::Write(_) => self.param(key, param, layout),
            Mode::Describe(_) => {}
            Mode::Read(file, _) => {
                file.remove(&key.into().in_dialect(&self.dialect).0);
            }
        }
    }

    /// A key under which other writers repeat what is known already: it is passed over in a file, and not
    /// written.
    pub fn passed_over(&mut self, key: impl Into<Key>) {
        if let Mode::Read(file, _) = &mut self.mode {
            file.remove(&key.into().in_dialect(&self.dialect).0);
        }
    }

    /// What was wrong while reading; keys left in the file are for the caller to judge.
    pub fn into_problems(self) -> Vec<KeyProblem> {
        match self.mode {
            Mode::Read(_, problems) => problems,
            _ => Vec::new(),
        }
    }

    /// What was listed.
    pub fn into_specs(self) -> Vec<TensorSpec> {
        match self.mode {
            Mode::Describe(specs) => specs,
            _ => Vec::new(),
        }
    }
}

/// The entries of a weight of `size` numbers that a file has under the keys of their values and their
/// places; a key that is missing should have had `shape`.
fn entries_of(
    file: &mut TensorMap,
    keys: [String; 2],
    shape: Vec<usize>,
    size: usize,
) -> Result<Entries, Vec<KeyProblem>> {
    let found = keys.each_ref().map(|key| file.remove(key));
    let [values, places] = match found {
        [Some(values), Some(places)] => [values, places],
        found => {
            let missing = keys.into_iter().zip(found).filter(|(_, found)| found.is_none());
            let problem = |(key, _)| KeyProblem::Missing { key, expected: shape.clone() };
            return Err(missing.map(problem).collect());
        }
    };
    let [of_values, of_places] = [&values, &places].map(|data| data.shape().to_vec());
    let [values_key, places_key] = keys;
    if of_values.len() != 1 {
        let expected = vec![of_values.iter().product()];
        return Err(vec![KeyProblem::Shape { key: values_key, expected, found: of_values }]);
    }
    if of_places != of_values {
        let (expected, found) = (of_values, of_places);
        return Err(vec![KeyProblem::Shape { key: places_key, expected, found }]);
    }
    let places: Vec<i64> = places.convert::<i64>().try_into_vec().expect("converted before");
    if places.iter().any(|place| usize::try_from(*place).map_or(true, |place| place >= size)) {
        return Err(vec![KeyProblem::OutOfBounds { key: places_key, below: size }]);
    }
    let values = values.convert::<f32>().try_into_vec().expect("converted before");
    Ok(Entries { places, values })
}

/// The values of a file's tensor, which has the shape `in_file`, in the layout of a parameter.
fn in_memory(data: TensorData, in_file: Vec<usize>, layout: Layout) -> TensorData {
    let values: Vec<f32> = data.convert::<f32>().try_into_vec().expect("converted before");
    let [rows, columns] = match in_file[..] {
        [.., rows, columns] if layout == Layout::Transposed => [rows, columns],
        _ => return TensorData::new(values, in_file),
    };
    let mut shape = in_file;
    let rank = shape.len();
    shape.swap(rank - 2, rank - 1);
    let mut turned = vec![0.0f32; values.len()];
    let size = (rows * columns).max(1);
    for (matrix, turned) in values.chunks_exact(size).zip(turned.chunks_exact_mut(size)) {
        for (column, line) in turned.chunks_exact_mut(rows).enumerate() {
            let values = matrix[column..].iter().step_by(columns);
            line.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
    }
    TensorData::new(turned, shape)
}

/// The same values in another shape.
fn reshaped(data: TensorData, shape: Vec<usize>) -> TensorData {
    let dtype = data.dtype();
    TensorData::from_bytes_vec(data.as_bytes().to_vec(), shape, dtype)
}

fn oriented<const D: usize>(tensor: Tensor<D>, layout: Layout) -> Tensor<D> {
    match layout {
        Layout::AsIs => tensor,
        Layout::Transposed => tensor.swap_dims(D - 2, D - 1),
    }
}

/// What HF PEFT puts before the path of a module in the keys of its files.
pub(crate) const KEY_PREFIX: &str = "base_model.model.";

impl Site {
    /// The key of one of a method's tensors at this site, as HF PEFT writes it:
    /// `base_model.model.<path>.<name>`.
    pub fn key(&self, name: &str) -> String {
        format!("{KEY_PREFIX}{}.{name}", self.path)
    }

    /// How the weight `[d_in, d_out]` of a linear layer, or the table of an embedding, lies in a
    /// checkpoint.
    pub fn layout(&self) -> Layout {
        match self.kind {
            SiteKind::Linear if !self.fan_in_fan_out => Layout::Transposed,
            _ => Layout::AsIs,
        }
    }
}
