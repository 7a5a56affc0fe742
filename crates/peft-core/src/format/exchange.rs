//! One description of a method's tensors that serves writing, reading and checking.

use std::fmt;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use serde::Serialize;

use super::TensorMap;

/// How a parameter lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in memory.
    AsIs,
    /// Its last two axes swapped: PyTorch's `Linear` holds `[d_out, d_in]`, Burn's
    /// `[d_in, d_out]`.
    Transposed,
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
            Self::Shape { key, expected, found } => {
                write!(f, "{key} has shape {found:?}, should have {expected:?}")
            }
        }
    }
}

/// The adapter file from a method's side: it names each tensor with its key, and the same names
/// write the file, read it, or list what it should hold.
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
}

enum Mode<'f> {
    Write(&'f mut TensorMap),
    Read(&'f mut TensorMap, Vec<KeyProblem>),
    Describe(Vec<TensorSpec>),
}

impl<'f> Exchange<'f> {
    /// Collects the tensors into `file`.
    pub fn write(file: &'f mut TensorMap) -> Self {
        Self { mode: Mode::Write(file) }
    }

    /// Takes the tensors out of `file` into the parameters.
    pub fn read(file: &'f mut TensorMap) -> Self {
        Self { mode: Mode::Read(file, Vec::new()) }
    }

    /// Lists the tensors.
    pub fn describe() -> Self {
        Self { mode: Mode::Describe(Vec::new()) }
    }

    /// One tensor and its key.
    ///
    /// # Panics
    /// If another tensor was written under the same key: one of the two would be lost.
    pub fn param<const D: usize>(
        &mut self,
        key: impl Into<String>,
        param: &mut Param<Tensor<D>>,
        layout: Layout,
    ) {
        let key = key.into();
        let mut shape = param.lazy_shape().to_vec();
        if layout == Layout::Transposed {
            shape.swap(D - 2, D - 1);
        }
        match &mut self.mode {
            Mode::Write(file) => {
                let value = oriented(param.base(), layout);
                let old = file.insert(key.clone(), value.into_data().convert::<f32>());
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
                    let new = Tensor::<D>::from_data(data.convert::<f32>(), (&device, DType::F32));
                    // Through its data, so that it lies in memory as a parameter that was
                    // trained does: the layout decides the order in which products are summed.
                    let new = Tensor::<D>::from_data(oriented(new, layout).into_data(), &device);
                    let new = new.set_require_grad(param.is_require_grad());
                    *param = Param::from_mapped_value(id, new, mapper);
                }
            },
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

fn oriented<const D: usize>(tensor: Tensor<D>, layout: Layout) -> Tensor<D> {
    match layout {
        Layout::AsIs => tensor,
        Layout::Transposed => tensor.swap_dims(D - 2, D - 1),
    }
}
