//! What a method does at a norm.

use burn::tensor::Tensor;
use peft_kernels::{Dropout, Norm};

use crate::{Change, Pass, Site};

/// Another value of a vector, such as a norm's gain.
#[derive(Debug, Clone, Default)]
#[expect(clippy::large_enum_variant, reason = "one is made for each site and is soon gone")]
pub enum VectorEdit {
    /// As it is.
    #[default]
    Keep,
    /// This one.
    Set(Tensor<1>),
    /// One edit after another.
    Stack(Vec<VectorEdit>),
    /// `Σ wₙ vₙ`.
    Mean(Vec<(f64, VectorEdit)>),
    /// By slot.
    Routed(Vec<VectorEdit>),
}

/// A vector, or one for each token.
#[derive(Debug, Clone)]
enum Value {
    /// `[d]`.
    All(Tensor<1>),
    /// `[tokens, d]`.
    Each(Tensor<2>),
}

impl VectorEdit {
    /// Whether the vector stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The vector under this edit, `[d]`.
    ///
    /// # Panics
    /// If rows differ.
    pub fn apply(&self, vector: Tensor<1>) -> Tensor<1> {
        match self {
            Self::Keep => vector,
            Self::Set(value) => value.clone(),
            Self::Stack(edits) => edits.iter().fold(vector, |vector, edit| edit.apply(vector)),
            Self::Mean(members) => {
                let terms = members.iter().map(|(w, edit)| edit.apply(vector.clone()) * *w);
                terms.reduce(|sum, term| sum + term).expect("a mean has members")
            }
            Self::Routed(_) => panic!("rows of a batch have different vectors"),
        }
    }

    fn value(&self, vector: Tensor<1>, pass: &Pass<'_>) -> Value {
        match self {
            Self::Routed(_) => self.each(vector, pass),
            Self::Stack(edits) if edits.iter().any(|edit| matches!(edit, Self::Routed(_))) => {
                self.each(vector, pass)
            }
            _ => Value::All(self.apply(vector)),
        }
    }

    fn each(&self, vector: Tensor<1>, pass: &Pass<'_>) -> Value {
        Value::Each(pass.by_slot(|slot, _, sub| {
            let value = self.of_slot(slot).apply(vector.clone());
            let [d] = value.dims();
            value.unsqueeze::<2>().expand([sub.rows.tokens(), d])
        }))
    }

    /// The edit of the rows of one slot.
    fn of_slot(&self, slot: Option<usize>) -> Self {
        match self {
            Self::Routed(members) => slot.map_or(Self::Keep, |slot| members[slot].clone()),
            Self::Stack(edits) => {
                Self::Stack(edits.iter().map(|edit| edit.of_slot(slot)).collect())
            }
            other => other.clone(),
        }
    }

    /// Whether the vector that another edit leaves is lost under this one.
    fn drops(&self, below: &Self) -> bool {
        match self {
            Self::Keep => false,
            Self::Routed(members) => members.iter().any(|edit| edit.drops(below)),
            _ => !below.is_keep(),
        }
    }
}

/// What a method does at a norm.
#[derive(Debug, Clone, Default)]
pub struct NormEdit {
    /// To the gain, `[d]`.
    pub gain: VectorEdit,
    /// To the bias, `[d]`; a norm without one has one of zeros.
    pub bias: VectorEdit,
}

impl NormEdit {
    /// Another gain, and another bias where there is one.
    pub fn set(gain: Tensor<1>, bias: Option<Tensor<1>>) -> Self {
        Self { gain: VectorEdit::Set(gain), bias: bias.map_or(VectorEdit::Keep, VectorEdit::Set) }
    }

    /// Another bias.
    pub fn bias(bias: Tensor<1>) -> Self {
        Self { gain: VectorEdit::Keep, bias: VectorEdit::Set(bias) }
    }

    /// Whether the norm stays as it is.
    pub fn is_none(&self) -> bool {
        self.gain.is_keep() && self.bias.is_keep()
    }

    /// What merging this changes at a site.
    pub fn change(&self, site: &Site) -> Change {
        let count = |edit: &VectorEdit| if edit.is_keep() { 0 } else { site.d_out() };
        Change { weight: count(&self.gain), bias: count(&self.bias), rank: 0 }
    }

    /// Why `above` cannot act over this edit.
    pub fn refuses(&self, above: &Self) -> Option<&'static str> {
        (above.gain.drops(&self.gain) || above.bias.drops(&self.bias))
            .then_some("it puts other values in the place of those that the other trains")
    }
}

/// A frozen norm over the last axis: a layer norm, `y = (x - mean) / sqrt(var + eps) ⊙ gain + bias`,
/// or an RMS norm, `y = x / sqrt(mean(x²) + eps) ⊙ gain`.
#[derive(Clone, Copy)]
pub struct NormLayer<'a> {
    site: &'a Site,
    gain: &'a Tensor<1>,
    bias: Option<&'a Tensor<1>>,
    epsilon: f64,
    centred: bool,
}

impl<'a> NormLayer<'a> {
    /// The frozen layer norm at `site`.
    pub fn new(
        site: &'a Site,
        gain: &'a Tensor<1>,
        bias: Option<&'a Tensor<1>>,
        epsilon: f64,
    ) -> Self {
        Self { site, gain, bias, epsilon, centred: true }
    }

    /// The frozen RMS norm at `site`.
    pub fn rms(site: &'a Site, gain: &'a Tensor<1>, epsilon: f64) -> Self {
        Self { site, gain, bias: None, epsilon, centred: false }
    }

    /// Where the norm is.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// The output `[tokens, d]` under an edit, for an input of the same shape.
    pub fn forward(&self, edit: &NormEdit, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        self.under(edit, pass, |norm| norm.forward(x))
    }

    /// The output under an edit for `residual + drop(x)`: the end of a sublayer.
    pub fn of_sum(
        &self,
        edit: &NormEdit,
        [residual, x]: [Tensor<2>; 2],
        dropout: Option<Dropout>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        self.under(edit, pass, |norm| norm.of_sum(residual, x, dropout))
    }

    fn under(
        &self,
        edit: &NormEdit,
        pass: &Pass<'_>,
        normalized: impl FnOnce(Norm) -> Tensor<2>,
    ) -> Tensor<2> {
        let gain = edit.gain.value(self.gain.clone(), pass);
        let bias = match (self.bias, edit.bias.is_keep()) {
            (None, true) => None,
            (bias, _) => {
                let bias = bias.cloned().unwrap_or_else(|| self.gain.zeros_like());
                Some(edit.bias.value(bias, pass))
            }
        };
        let &Self { epsilon, centred, .. } = self;
        let norm = |gain, bias| Norm { gain, bias, epsilon, centred };
        match (gain, bias) {
            (Value::All(gain), None) => normalized(norm(gain, None)),
            (Value::All(gain), Some(Value::All(bias))) => normalized(norm(gain, Some(bias))),
            (gain, bias) => {
                let each = |value: Value| match value {
                    Value::All(vector) => vector.unsqueeze(),
                    Value::Each(vectors) => vectors,
                };
                let y = normalized(norm(self.gain.ones_like(), None)) * each(gain);
                match bias {
                    Some(bias) => y + each(bias),
                    None => y,
                }
            }
        }
    }
}
