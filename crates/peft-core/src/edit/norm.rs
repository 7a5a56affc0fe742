//! What a method does at a norm.

use burn::tensor::Tensor;
use peft_kernels::{Dropout, Norm};

use crate::{Change, Pass, Route, Site};

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
    /// Each for the tokens that a route sends there.
    Routed(Route, Vec<VectorEdit>),
}

/// A vector, or one for each token.
#[derive(Debug, Clone)]
enum Value {
    /// `[d]`.
    All(Tensor<1>),
    /// `[tokens, d]`.
    Each(Tensor<2>),
}

impl Value {
    /// One for each of `tokens` tokens.
    fn of_each(self, tokens: usize) -> Tensor<2> {
        match self {
            Self::All(vector) => {
                let [d] = vector.dims();
                vector.unsqueeze::<2>().expand([tokens, d])
            }
            Self::Each(vectors) => vectors,
        }
    }

    fn times(self, factor: f64) -> Self {
        match self {
            Self::All(vector) => Self::All(vector * factor),
            Self::Each(vectors) => Self::Each(vectors * factor),
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::All(a), Self::All(b)) => Self::All(a + b),
            (Self::Each(a), Self::Each(b)) => Self::Each(a + b),
            (Self::Each(each), Self::All(all)) | (Self::All(all), Self::Each(each)) => {
                Self::Each(each + all.unsqueeze())
            }
        }
    }
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
            Self::Routed(..) => panic!("rows of a batch have different vectors"),
        }
    }

    /// What this makes of a vector, or of one for each token.
    fn over(&self, value: Value, pass: &Pass<'_>) -> Value {
        match self {
            Self::Keep => value,
            Self::Set(vector) => Value::All(vector.clone()),
            Self::Stack(edits) => edits.iter().fold(value, |value, edit| edit.over(value, pass)),
            Self::Mean(members) => {
                let terms =
                    members.iter().map(|(w, edit)| edit.over(value.clone(), pass).times(*w));
                terms.reduce(Value::plus).expect("a mean has members")
            }
            Self::Routed(route, members) => Value::Each(pass.routed(route, |member, part, sub| {
                let value = match &value {
                    Value::All(vector) => Value::All(vector.clone()),
                    Value::Each(vectors) => Value::Each(part.take(vectors)),
                };
                let edit = member.map_or(&Self::Keep, |member| &members[member]);
                edit.over(value, sub).of_each(sub.rows.tokens())
            })),
        }
    }

    /// Whether the vector that another edit leaves is lost under this one.
    fn drops(&self, below: &Self) -> bool {
        match self {
            Self::Keep => false,
            Self::Routed(_, members) => members.iter().any(|edit| edit.drops(below)),
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
        let gain = edit.gain.over(Value::All(self.gain.clone()), pass);
        let bias = match (self.bias, edit.bias.is_keep()) {
            (None, true) => None,
            (bias, _) => {
                let bias = bias.cloned().unwrap_or_else(|| self.gain.zeros_like());
                Some(edit.bias.over(Value::All(bias), pass))
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
