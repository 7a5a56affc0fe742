//! The forms that an edit can have.

use std::fmt::Debug;
use std::ops::Range;

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, module::linear};
use peft_kernels::LowRankPart;

use super::inverse::inverse;
use super::{Edit, Kronecker};
use crate::{Change, MemoKey, Pass, Site};

/// `y + s ((x A) B + c)`, with dropout on `x` in training; most have no `c`.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `A`, `[d_in, r]`.
    pub a: Tensor<2>,
    /// `B`, `[r, d_out]`, or as wide as `columns`.
    pub b: Tensor<2>,
    /// `s`.
    pub scale: f64,
    /// The probability of dropping a value of `x`.
    pub dropout: f64,
    /// The columns of the output that change, where not all do.
    pub columns: Option<Range<usize>>,
    /// `c`, `[d_out]`; of the whole output.
    pub bias: Option<Tensor<1>>,
}

impl LowRank {
    /// Factors of the whole output, without dropout.
    pub fn new(a: Tensor<2>, b: Tensor<2>, scale: f64) -> Self {
        Self { a, b, scale, dropout: 0.0, columns: None, bias: None }
    }

    /// With dropout on the input of the factors.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Of some columns of the output.
    pub fn of_columns(self, columns: Range<usize>) -> Self {
        Self { columns: Some(columns), ..self }
    }

    /// With a bias of its own.
    pub fn with_bias(self, bias: Option<Tensor<1>>) -> Self {
        Self { bias, ..self }
    }

    /// The rank `r`.
    pub fn rank(&self) -> usize {
        self.a.dims()[1]
    }

    /// `s c`, `[d_out]`.
    pub(super) fn added_bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(|bias| bias.clone() * self.scale)
    }

    /// What a product computes beside itself, where all of the output changes.
    pub(super) fn part(&self, pass: &Pass<'_>) -> LowRankPart {
        let (a, b) = (self.a.clone(), self.b.clone());
        LowRankPart { a, b, scale: self.scale, dropout: pass.next_dropout(self.dropout) }
    }

    /// `s ((x A) B + c)`, `[tokens, d_out]`.
    pub(super) fn delta(&self, x: Tensor<2>, d_out: usize, pass: &Pass<'_>) -> Tensor<2> {
        let x = pass.dropout(x, self.dropout);
        // The scale goes on the narrow side.
        let inner = linear(x, self.a.clone(), None) * self.scale;
        self.placed(linear(inner, self.b.clone(), self.added_bias()), d_out)
    }

    /// `s A B`, `[d_in, d_out]`.
    pub(super) fn dense(&self, d_out: usize) -> Tensor<2> {
        self.placed(self.a.clone().matmul(self.b.clone()) * self.scale, d_out)
    }

    /// With zeros in the columns that do not change.
    fn placed(&self, values: Tensor<2>, d_out: usize) -> Tensor<2> {
        let zeros = |shape, device: &Device| Tensor::zeros(shape, device);
        placed(values, self.columns.as_ref(), d_out, zeros)
    }
}

/// `((x ⊙ l_in) W + b) ⊙ l_out`: the bias is scaled with the output, unless it is kept.
#[derive(Debug, Clone)]
pub struct Scale {
    /// `l_in`, `[d_in]`.
    pub input: Option<Tensor<1>>,
    /// `l_out`, `[d_out]`, or as wide as `columns`.
    pub output: Option<Tensor<1>>,
    /// The columns of the output that are scaled, where not all are.
    pub columns: Option<Range<usize>>,
    /// Whether the bias stays as it is: `(x ⊙ l_in) W ⊙ l_out + b`.
    pub keeps_bias: bool,
}

impl Scale {
    /// Of the input.
    pub fn input(scale: Tensor<1>) -> Self {
        Self { input: Some(scale), output: None, columns: None, keeps_bias: false }
    }

    /// Of the output.
    pub fn output(scale: Tensor<1>) -> Self {
        Self { input: None, output: Some(scale), columns: None, keeps_bias: false }
    }

    /// Of the weight alone: the bias stays as it is.
    pub fn keeping_bias(self) -> Self {
        Self { keeps_bias: true, ..self }
    }

    /// Of some columns of the output.
    pub fn of_columns(self, columns: Range<usize>) -> Self {
        Self { columns: Some(columns), ..self }
    }

    /// `l_out`, `[1, d_out]`, with ones in the columns that do not change.
    pub(super) fn of_output(&self, d_out: usize) -> Option<Tensor<2>> {
        let scale = self.output.clone()?.unsqueeze::<2>();
        Some(placed(scale, self.columns.as_ref(), d_out, |shape, device| {
            Tensor::ones(shape, device)
        }))
    }
}

/// `values`, `[n, columns]`, as some columns of `[n, d_out]`, with others beside them.
pub(super) fn placed(
    values: Tensor<2>,
    columns: Option<&Range<usize>>,
    d_out: usize,
    others: impl Fn([usize; 2], &Device) -> Tensor<2>,
) -> Tensor<2> {
    let Some(columns) = columns else { return values };
    let ([n, _], device) = (values.dims(), values.device().without_autodiff());
    let beside = |width: usize| (width > 0).then(|| others([n, width], &device));
    let (before, behind) = (beside(columns.start), beside(d_out - columns.end));
    Tensor::cat(before.into_iter().chain([values]).chain(behind).collect(), 1)
}

/// `x W ⊙ m / ‖W‖ + b`: each column of the weight `W` gets another norm. The norm that it has is a
/// constant in the backward pass (DoRA, Liu et al. 2024, arXiv 2402.09353, §4.3).
#[derive(Debug, Clone)]
pub struct Magnitude {
    /// `m`, `[d_out]`.
    pub values: Tensor<1>,
    /// Under which the norms are kept for a pass.
    pub key: MemoKey,
    /// `D`, where the form is that of adapter-hub/adapters, `(x W + b) ⊙ m / ‖W + D‖`: the bias is
    /// scaled too, and the norm has a gradient.
    pub beside: Option<Box<LowRank>>,
}

impl Magnitude {
    /// Of the paper's form.
    pub fn new(values: Tensor<1>, key: MemoKey) -> Self {
        Self { values, key, beside: None }
    }

    /// The norm of each column of what is divided by: `[d_out]`, for the weight `[d_in, d_out]`.
    pub(super) fn norms(&self, weight: Tensor<2>) -> Tensor<1> {
        let [_, d_out] = weight.dims();
        let weight = match &self.beside {
            None => weight.detach(),
            Some(beside) => weight + beside.dense(d_out),
        };
        weight.square().sum_dim(0).sqrt().squeeze_dim(0)
    }

    /// `m / ‖·‖`, `[1, d_out]`, of the weight `below`.
    pub(super) fn share(&self, below: &dyn Fn() -> Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let norms = pass.memo.get(self.key, || self.norms(below()));
        (self.values.clone() / norms).unsqueeze()
    }

    /// The same outside of a pass.
    pub(super) fn share_of(&self, weight: Tensor<2>) -> Tensor<2> {
        (self.values.clone() / self.norms(weight)).unsqueeze()
    }
}

/// On which side of a weight something acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On `x`.
    Input,
    /// On `y`, the bias included.
    Output,
}

/// A square matrix `R` on one side: `(x R) W + b`, or `(x W + b) R`.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// `R`, as wide as that side.
    pub rotation: Rotation,
    /// The side.
    pub side: Side,
    /// Whether `R` is orthogonal, so that its transpose is its inverse.
    pub orthogonal: bool,
}

/// A square matrix that is more than its entries are needed for.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one is made for each site and is soon gone")]
pub enum Rotation {
    /// Blocks `[blocks, size, size]` on the diagonal; `blocks · size` is its width.
    Blocks(Tensor<3>),
    /// `I + A B`: a product of reflections.
    LowRank {
        /// `A`, `[width, r]`.
        a: Tensor<2>,
        /// `B`, `[r, width]`.
        b: Tensor<2>,
    },
}

impl Rotation {
    /// `x R` for `[n, width]`.
    pub(super) fn turn(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Blocks(blocks) => {
                let ([n, width], [count, size, _]) = (x.dims(), blocks.dims());
                let x = x.reshape([n, count, size]).swap_dims(0, 1);
                x.matmul(blocks.clone()).swap_dims(0, 1).reshape([n, width])
            }
            Self::LowRank { a, b } => {
                let inner = linear(x.clone(), a.clone(), None);
                x + linear(inner, b.clone(), None)
            }
        }
    }

    /// `R W` for `[width, n]`, which is `(Wᵀ Rᵀ)ᵀ`.
    pub(super) fn turn_rows(&self, weight: Tensor<2>) -> Tensor<2> {
        self.transpose().turn(weight.transpose()).transpose()
    }

    /// `Rᵀ`.
    fn transpose(&self) -> Self {
        match self {
            Self::Blocks(blocks) => Self::Blocks(blocks.clone().swap_dims(1, 2)),
            Self::LowRank { a, b } => {
                Self::LowRank { a: b.clone().transpose(), b: a.clone().transpose() }
            }
        }
    }

    /// The most that its change of a matrix can have as a rank.
    pub(super) fn rank(&self) -> Option<usize> {
        match self {
            Self::Blocks(_) => None,
            Self::LowRank { a, .. } => Some(a.dims()[1]),
        }
    }
}

impl Rotate {
    /// By blocks `[blocks, size, size]`.
    pub fn blocks(blocks: Tensor<3>, side: Side) -> Self {
        Self { rotation: Rotation::Blocks(blocks), side, orthogonal: false }
    }

    /// By `I + A B`.
    pub fn low_rank(a: Tensor<2>, b: Tensor<2>, side: Side) -> Self {
        Self { rotation: Rotation::LowRank { a, b }, side, orthogonal: false }
    }

    /// Where `R` is orthogonal.
    pub fn orthogonal(self) -> Self {
        Self { orthogonal: true, ..self }
    }

    /// `R⁻¹`, where there is one that can be known.
    pub(super) fn inverse(&self) -> Option<Rotation> {
        match &self.rotation {
            rotation if self.orthogonal => Some(rotation.transpose()),
            Rotation::Blocks(blocks) => inverse(blocks.clone()).map(Rotation::Blocks),
            Rotation::LowRank { .. } => None,
        }
    }
}

/// One of so many entries costs as much by itself as all of them do in a product.
const MOST_APART: usize = 256;

/// `x (W + S) + b`, where `S` has few values.
#[derive(Debug, Clone)]
pub struct Sparse {
    /// `[n]`, the input of each value: its row in `[d_in, d_out]`.
    pub inputs: Tensor<1, Int>,
    /// `[n]`, the output of each value: its column.
    pub outputs: Tensor<1, Int>,
    /// `[n]`; values of one place add up.
    pub values: Tensor<1>,
}

impl Sparse {
    /// `x S`, `[tokens, d_out]`: one by one where they are few, and with `S` as a dense matrix where
    /// that is faster than `[tokens, n]` terms in any order, and takes less memory.
    pub(super) fn delta(&self, x: Tensor<2>, d_out: usize) -> Tensor<2> {
        let ([_, d_in], [count]) = (x.dims(), self.values.dims());
        if count * MOST_APART > d_in * d_out {
            return linear(x, self.dense([d_in, d_out]), None);
        }
        let terms = x.select(1, self.inputs.clone()) * self.values.clone().unsqueeze_dim(0);
        let zeros = Tensor::zeros([terms.dims()[0], d_out], &terms.device());
        zeros.select_assign(1, self.outputs.clone(), terms, IndexingUpdateOp::Add)
    }

    /// `S`, `[d_in, d_out]`.
    pub(super) fn dense(&self, [d_in, d_out]: [usize; 2]) -> Tensor<2> {
        let places = self.inputs.clone() * d_out as i64 + self.outputs.clone();
        let zeros = Tensor::<1>::zeros([d_in * d_out], &self.values.device());
        let filled = zeros.select_assign(0, places, self.values.clone(), IndexingUpdateOp::Add);
        filled.reshape([d_in, d_out])
    }
}

/// `x (W + S) + b`, where `S` is dense in some rows and columns and zero elsewhere: units of a layer.
#[derive(Debug, Clone)]
pub struct Block {
    /// `[rows]`, the inputs that change something, each once; all where it is `None`.
    pub inputs: Option<Tensor<1, Int>>,
    /// `[columns]`, the outputs that change, each once; all where it is `None`.
    pub outputs: Option<Tensor<1, Int>>,
    /// `[rows, columns]`.
    pub values: Tensor<2>,
}

impl Block {
    /// `x S`, `[tokens, d_out]`.
    pub(super) fn delta(&self, x: Tensor<2>, d_out: usize) -> Tensor<2> {
        let x = match &self.inputs {
            Some(inputs) => x.select(1, inputs.clone()),
            None => x,
        };
        self.in_columns(linear(x, self.values.clone(), None), d_out)
    }

    /// `S`, `[d_in, d_out]`.
    pub(super) fn dense(&self, [d_in, d_out]: [usize; 2]) -> Tensor<2> {
        let values = self.in_columns(self.values.clone(), d_out);
        match &self.inputs {
            Some(inputs) => {
                let zeros = Tensor::zeros([d_in, d_out], &values.device());
                zeros.select_assign(0, inputs.clone(), values, IndexingUpdateOp::Add)
            }
            None => values,
        }
    }

    /// With zeros in the outputs that do not change.
    fn in_columns(&self, values: Tensor<2>, d_out: usize) -> Tensor<2> {
        match &self.outputs {
            Some(outputs) => {
                let zeros = Tensor::zeros([values.dims()[0], d_out], &values.device());
                zeros.select_assign(1, outputs.clone(), values, IndexingUpdateOp::Add)
            }
            None => values,
        }
    }
}

/// Any function `W'` of a weight.
pub trait WeightMap: Debug + Send + Sync {
    /// `W'`, `[d_in, d_out]`; `weight` makes the weight `W` of the edits before this one, which may
    /// have to be unpacked or put together.
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2>;

    /// `W` from `W'`, where that can be known.
    fn invert(&self, _weight: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    /// Whether `W'` depends on `W`. Where it does not, the map cannot be put over other changes,
    /// which would be lost.
    fn keeps_what_is_below(&self) -> bool {
        true
    }

    /// The probability of dropping a value of the input of the change `W' - W`, in training.
    fn dropout(&self) -> f64 {
        0.0
    }

    /// How many entries of the weight change, and the largest rank that their change can have: all
    /// of them, unless it says otherwise.
    fn change(&self, site: &Site) -> Change {
        Change { weight: site.d_in() * site.d_out(), bias: 0, rank: site.d_in().min(site.d_out()) }
    }
}

/// Another weight in place of the frozen one: full fine-tuning of a layer.
#[derive(Debug, Clone)]
pub struct Replaced(pub Tensor<2>);

impl WeightMap for Replaced {
    fn weight(&self, _weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        self.0.clone()
    }

    fn keeps_what_is_below(&self) -> bool {
        false
    }
}

/// A dense change of a weight: `W + D`.
#[derive(Debug, Clone)]
pub struct Added {
    /// `D`, `[d_in, d_out]`.
    pub values: Tensor<2>,
    /// The largest rank that it can have, if that is less than its shape allows.
    pub rank: Option<usize>,
}

impl WeightMap for Added {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() + self.values.clone()
    }

    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        Some(weight - self.values.clone())
    }

    fn change(&self, site: &Site) -> Change {
        let [d_in, d_out] = site.shape;
        let most = d_in.min(d_out);
        Change { weight: d_in * d_out, bias: 0, rank: self.rank.map_or(most, |r| r.min(most)) }
    }
}

/// Any function of a linear layer's input and output. It has no weight, so it cannot be merged, and
/// what needs a weight cannot be put over it.
pub trait OutputMap: Debug + Send + Sync {
    /// `[tokens, d_out]` from `x`, `[tokens, d_in]`, and the output `y` so far, `[tokens, d_out]`.
    fn forward(&self, x: &Tensor<2>, y: Tensor<2>, pass: &Pass<'_>) -> Tensor<2>;

    /// Why there is no weight, as the end of a sentence: "its experts depend on the input".
    fn obstacle(&self) -> &'static str;
}

macro_rules! into_edit {
    ($($form:ident),*) => {
        $(impl From<$form> for Edit {
            fn from(form: $form) -> Self {
                Self::$form(form)
            }
        })*
    };
}
into_edit!(LowRank, Scale, Magnitude, Rotate, Sparse, Kronecker, Block);
