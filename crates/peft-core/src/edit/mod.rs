//! What a method does at a linear layer, as data.

mod apply;
mod change;
mod compose;
mod derive;
mod forms;
mod gate;
mod inverse;
mod kronecker;
mod norm;
mod routed;
mod table;

pub use apply::LinearLayer;
pub use change::Change;
pub(crate) use compose::{Answer, stack};
pub use forms::{
    Added, Block, LowRank, Magnitude, OutputMap, Replaced, Rotate, Rotation, Scale, Side, Sparse,
    WeightMap,
};
pub use gate::{Gate, GateOn};
pub use kronecker::{Kronecker, KroneckerShape, nearest_divisors};
pub use norm::{NormEdit, NormLayer, VectorEdit};
pub use routed::Routed;
pub use table::{TableEdit, TableRows};

use std::sync::Arc;

use burn::tensor::Tensor;

/// One change of a linear layer `y = x W + b`, as the edits before it in the list leave that layer.
#[derive(Debug, Clone)]
pub enum Edit {
    /// `y + s (x A) B`.
    LowRank(LowRank),
    /// `((x ⊙ l_in) W + b) ⊙ l_out`.
    Scale(Scale),
    /// `x W ⊙ m / ‖W‖ + b`: each column of the weight gets another norm.
    Magnitude(Magnitude),
    /// `(x R) W + b`, or `(x W + b) R`.
    Rotate(Rotate),
    /// `x (W + S) + b`.
    Sparse(Sparse),
    /// `y + s x (A ⊗ B)`.
    Kronecker(Kronecker),
    /// `x (W + S) + b`, with `S` in some rows and columns.
    Block(Block),
    /// `x W + b'`.
    Bias(Tensor<1>),
    /// `x W' + b` for any function `W'` of the weight.
    Weight(Arc<dyn WeightMap>),
    /// Any function of `x` and `y`; there is no weight then.
    Output(Arc<dyn OutputMap>),
    /// `y + g (y' - y)`, where `y'` is the layer under these edits, and `g` a gate; or `g y'`, as
    /// the gate says.
    Gated(Gate, Edits),
    /// `Σ wₙ yₙ`, where `yₙ` is the layer under the edits of a member.
    Mean(Vec<(f64, Edits)>),
    /// Each row under the edits of its slot.
    Routed(Routed),
}

/// What a method does at a linear layer: changes that act one after another, the first nearest to
/// the base.
///
/// The product, the dense weight, its inverse, the rank and the counts all follow from this list;
/// see [`apply`](Self::apply), [`dense`](Self::dense), [`invert`](Self::invert) and
/// [`change`](Self::change).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use peft_core::{Edit, Edits, LowRank};
/// let device = Device::default();
/// // LoRA of rank 2 over a layer [6, 4], and another bias.
/// let (a, b) = (Tensor::ones([6, 2], &device), Tensor::ones([2, 4], &device));
/// let edits = Edits::from(LowRank::new(a, b, 0.5)).then(Edit::Bias(Tensor::zeros([4], &device)));
/// assert_eq!(edits.iter().count(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Edits {
    list: Vec<Edit>,
    no_inverse: Option<&'static str>,
}

impl Edits {
    /// The layer as it is.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether the layer stays as it is.
    pub fn is_none(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether some of it is under a gate.
    pub(crate) fn is_gated(&self) -> bool {
        self.iter().any(|edit| match edit {
            Edit::Gated(..) => true,
            Edit::Mean(members) => members.iter().any(|(_, edits)| edits.is_gated()),
            Edit::Routed(routed) => routed.members().iter().any(Self::is_gated),
            _ => false,
        })
    }

    /// The changes, the first nearest to the base.
    pub fn iter(&self) -> std::slice::Iter<'_, Edit> {
        self.list.iter()
    }

    /// With another change after these.
    pub fn then(mut self, edit: impl Into<Edit>) -> Self {
        self.list.push(edit.into());
        self
    }

    /// With other changes after these.
    pub fn followed_by(mut self, above: Self) -> Self {
        self.list.extend(above.list);
        self.no_inverse = self.no_inverse.or(above.no_inverse);
        self
    }

    /// Says that the weight under these edits cannot be turned back into the base's: they are made
    /// from a frozen weight that is no longer there once they are merged.
    pub fn without_inverse(self, reason: &'static str) -> Self {
        Self { no_inverse: Some(reason), ..self }
    }
}

impl<E: Into<Edit>> From<E> for Edits {
    fn from(edit: E) -> Self {
        Self { list: vec![edit.into()], no_inverse: None }
    }
}

impl FromIterator<Edit> for Edits {
    fn from_iter<I: IntoIterator<Item = Edit>>(edits: I) -> Self {
        Self { list: edits.into_iter().collect(), no_inverse: None }
    }
}
