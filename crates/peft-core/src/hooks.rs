//! The hooks at which a method meets a model.

use std::fmt::Debug;

use burn::tensor::{Bool, Int, Tensor, module::linear};

use crate::{
    BoxedMethod, FrozenWeight, LinearLayer, NormLayer, ResidualLayer, ResidualStates, Site,
};

/// Embeddings of a batch on their way into a model.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `[batch, tokens, d]`.
    pub hidden: Tensor<3>,
    /// `[batch, tokens]`, true where there is a token; `None` where every position is one.
    pub mask: Option<Tensor<2, Bool>>,
    /// `[batch, tokens]`, which of a pair's texts a token is of; `None` where all are of the first.
    pub segments: Option<Tensor<2, Int>>,
    /// By row, how many positions are taken before the first one here; empty where none are.
    pub shift: Vec<usize>,
    /// Whether these go on from tokens that the model has kept: then nothing goes before them.
    pub continues: bool,
}

impl Embedded {
    /// Embeddings whose positions are counted from 0.
    pub fn new(hidden: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Self {
        Self { hidden, mask, segments: None, shift: Vec::new(), continues: false }
    }

    /// With `positions` more taken before the first one, in every row.
    pub fn shifted(mut self, positions: usize) -> Self {
        self.shift.resize(self.hidden.dims()[0], 0);
        self.shift.iter_mut().for_each(|shift| *shift += positions);
        self
    }

    /// With virtual tokens `[batch, added, d]` before the text; every one is a token, and of the
    /// first segment.
    pub fn prepend(self, virtual_tokens: Tensor<3>) -> Self {
        let [batch, added, _] = virtual_tokens.dims();
        let mask = self.mask.map(|mask| prepend_true(mask, added));
        let segments = self.segments.map(|segments| {
            Tensor::cat(vec![Tensor::zeros([batch, added], &segments.device()), segments], 1)
        });
        let hidden = Tensor::cat(vec![virtual_tokens, self.hidden], 1);
        Self { hidden, mask, segments, ..self }
    }
}

/// Keys and values of an attention, each `[batch, heads, positions, head_dim]`.
///
/// Positions that a method adds go before those of the text and are seen by every token.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// The keys.
    pub key: Tensor<4>,
    /// The values.
    pub value: Tensor<4>,
    /// `[batch, positions]`, true where there is something to attend to; `None` where that is
    /// everywhere.
    pub mask: Option<Tensor<2, Bool>>,
    /// By row, how many positions in front are there only because other rows have more; empty where
    /// none are. The mask hides them.
    pub filled: Vec<usize>,
}

impl KeyValue {
    /// Keys and values of which none were filled up.
    pub fn new(key: Tensor<4>, value: Tensor<4>, mask: Option<Tensor<2, Bool>>) -> Self {
        Self { key, value, mask, filled: Vec::new() }
    }

    /// With keys and values `[batch, heads, added, head_dim]` before those of the text, seen by
    /// every token.
    pub fn prepend(self, key: Tensor<4>, value: Tensor<4>) -> Self {
        let mask = self.mask.map(|mask| prepend_true(mask, key.dims()[2]));
        let joined = |added, own| Tensor::cat(vec![added, own], 2);
        Self { key: joined(key, self.key), value: joined(value, self.value), mask, ..self }
    }
}

fn prepend_true(mask: Tensor<2, Bool>, added: usize) -> Tensor<2, Bool> {
    let front = Tensor::ones([mask.dims()[0], added], &mask.device());
    Tensor::cat(vec![front, mask], 1)
}

/// Where a method meets a model: one hook for each way in which an adaptation can compose with a
/// network (Ruder et al., *Modular and Parameter-Efficient Fine-Tuning for NLP Models*, 2022).
///
/// Every default leaves the model as it is, so a method implements only what it changes, and the
/// unit type `()` is the base model itself. The trait is object safe: a model is compiled once,
/// and the method is chosen at run time.
///
/// # Parameter composition
///
/// [`weight`](Self::weight), [`bias`](Self::bias), [`norm_gain`](Self::norm_gain) and
/// [`norm_bias`](Self::norm_bias) state the value that a module has under the method, or `None`
/// where it stays as it is. A method that implements them can be merged, and attached to any Burn
/// module ([`Reparameterized`](crate::Reparameterized)). [`linear`](Self::linear) is for methods
/// with a cheaper form (`x W + s (x A) B` without a dense `W'`), and must agree with `weight`.
pub trait Hooks: Debug + Send + Sync {
    /// The weight `[d_in, d_out]` of a linear layer under this method.
    fn weight(&self, _layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        None
    }

    /// The weight `[d_in, d_out]` under a method that was merged into `layer`: the inverse of
    /// [`weight`](Self::weight), where it has one.
    fn unmerged_weight(&self, _layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        None
    }

    /// The bias `[d_out]` of a linear layer under this method.
    fn bias(&self, _layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        None
    }

    /// The output `[batch, tokens, d_out]` of a linear layer for `[batch, tokens, d_in]`.
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match (self.weight(layer), self.bias(layer)) {
            (None, None) => layer.forward(input),
            (Some(weight), bias) => linear(input, weight, bias.or_else(|| layer.bias())),
            (None, bias) => layer.with_bias(input, bias),
        }
    }

    /// The gain `[d]` of a norm under this method.
    fn norm_gain(&self, _layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        None
    }

    /// The bias `[d]` of a norm under this method.
    fn norm_bias(&self, _layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        None
    }

    /// The output of a norm, `[batch, tokens, d]`.
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match (self.norm_gain(layer), self.norm_bias(layer)) {
            (None, None) => layer.forward(input),
            (gain, bias) => layer.normalize(
                input,
                gain.unwrap_or_else(|| layer.gain()),
                bias.or_else(|| layer.bias()),
            ),
        }
    }

    /// The table `[entries, d]` of an embedding under this method. A head that is tied to it
    /// compares with the same table.
    fn embedding(&self, _site: &Site, table: FrozenWeight) -> FrozenWeight {
        table
    }

    /// Input composition: the token embeddings before positions are added, which a method may
    /// lengthen where a text begins.
    fn embed(&self, _site: &Site, embedded: Embedded) -> Embedded {
        embedded
    }

    /// Input composition: what the first layer is given, positions and the embeddings' norm
    /// included, which a method may lengthen.
    fn layers_input(&self, _site: &Site, embedded: Embedded) -> Embedded {
        embedded
    }

    /// Input composition in an attention: keys and values, which a method may lengthen. Of a text
    /// that goes on from kept tokens, this is asked at its beginning only. `hidden` is what the
    /// attention is given, `[batch, tokens, d]`.
    fn key_value(&self, _site: &Site, _hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        states
    }

    /// Function composition: what meets at the end of a sublayer, before it is added up.
    fn residual(&self, _layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        states
    }

    /// What the method's function reads at the end of a sublayer, `[batch, tokens, d]`: the input of
    /// a gate or of a fusion's query beside it. The normalised sum, unless it says otherwise.
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        layer.forward(states.clone())
    }

    /// Whether [`head_input`](Self::head_input) reads every layer's output; the model keeps them
    /// only then.
    fn reads_hidden_states(&self) -> bool {
        false
    }

    /// Function composition at the top: what the head is given, `[batch, tokens, d]`.
    /// `hidden_states` holds the embeddings' and every layer's output where
    /// [`reads_hidden_states`](Self::reads_hidden_states) says so, else the last layer's alone.
    ///
    /// # Panics
    /// If `hidden_states` is empty.
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        hidden_states.last().expect("a model has at least one hidden state").clone()
    }

    /// Input composition undone: the states `[batch, tokens, d]` that a language-model head
    /// compares with the token embeddings. For invertible adapters.
    fn unembed(&self, _site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        hidden
    }

    /// The method for other rows of the batch that it is made for: row `i` is what row `rows[i]`
    /// was, and one may be there several times. `None` where all rows are alike to it.
    ///
    /// # Panics
    /// If a row is outside that batch.
    fn for_rows(&self, _rows: &[usize]) -> Option<BoxedMethod> {
        None
    }
}

/// The base model itself.
impl Hooks for () {}
