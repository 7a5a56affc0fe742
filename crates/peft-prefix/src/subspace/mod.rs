//! Intrinsic prompt tuning: a subspace of prompts, and a prompt in it.

mod file;
mod find;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Distribution, Tensor};
use peft_core::{Exchange, InitContext, Layout, Result};

pub use file::SUBSPACE_FILE;
pub use find::{FoundSubspace, SubspaceSettings, find_subspace};

use crate::start;

/// A subspace of prompts, found between the prompts of several tasks (Qin et al. 2021, arXiv 2110.07867):
/// an auto-encoder of all of a prompt's numbers `p`, `[L d]`.
///
/// ```text
/// z = p W₁ + b₁                        W₁: [L d, d_I]
/// p ≈ tanh(z W₂ + b₂) W₃ + b₃          W₂: [d_I, h]    W₃: [h, L d]
/// ```
///
/// Made by [`find_subspace`]; a file of it is read by [`load`](Self::load).
#[derive(Module, Debug)]
pub struct PromptSubspace {
    /// `W₁`, `b₁`.
    pub encoder: Linear,
    /// The way back.
    pub decoder: PromptDecoder,
}

/// The decoder of a [`PromptSubspace`].
#[derive(Module, Debug)]
pub struct PromptDecoder {
    /// `W₂`, `b₂`.
    pub inner: Linear,
    /// `W₃`, `b₃`.
    pub outer: Linear,
}

impl PromptSubspace {
    /// At its start, as PyTorch's linear layers; `[L d, d_I, h]`.
    fn new([values, dimension, hidden]: [usize; 3], context: &InitContext<'_>) -> Self {
        let linear = |d_in, d_out| start::linear(d_in, d_out, context);
        let decoder =
            PromptDecoder { inner: linear(dimension, hidden), outer: linear(hidden, values) };
        Self { encoder: linear(values, dimension), decoder }
    }

    /// `z`, `[prompts, d_I]` of `[prompts, L d]`.
    pub fn encode(&self, prompts: Tensor<2>) -> Tensor<2> {
        self.encoder.forward(prompts)
    }

    /// The numbers of prompts after both ways, `[prompts, L d]` to the same.
    pub fn reconstructed(&self, prompts: Tensor<2>) -> Tensor<2> {
        self.decoder.decode(self.encode(prompts))
    }

    /// Names the tensors in its file.
    fn exchange(&mut self, file: &mut Exchange<'_>) {
        linear(file, "encoder".into(), &mut self.encoder);
        self.decoder.exchange(file, "decoder");
    }
}

impl PromptDecoder {
    /// The numbers of prompts, `[prompts, L d]` of `[prompts, d_I]`.
    pub fn decode(&self, z: Tensor<2>) -> Tensor<2> {
        self.outer.forward(self.inner.forward(z).tanh())
    }

    /// `d_I`.
    pub fn intrinsic_dimension(&self) -> usize {
        self.inner.weight.lazy_shape()[0]
    }

    /// `L d`.
    pub fn num_values(&self) -> usize {
        self.outer.weight.lazy_shape()[1]
    }

    fn exchange(&mut self, file: &mut Exchange<'_>, key: &str) {
        // The activation between has a number too.
        linear(file, format!("{key}.0"), &mut self.inner);
        linear(file, format!("{key}.2"), &mut self.outer);
    }
}

fn linear(file: &mut Exchange<'_>, key: String, layer: &mut Linear) {
    file.param(format!("{key}.weight"), &mut layer.weight, Layout::Transposed);
    if let Some(bias) = &mut layer.bias {
        file.param(format!("{key}.bias"), bias, Layout::AsIs);
    }
}

/// A prompt in a subspace: `d_I` trained numbers `z`, and the frozen decoder that makes a prompt of them.
#[derive(Module, Debug)]
pub struct IntrinsicPrompt {
    /// `z`, `[d_I]`, from `N(0, 0.02)`.
    pub vector: Param<Tensor<1>>,
    decoder: PromptDecoder,
}

impl IntrinsicPrompt {
    /// # Errors
    /// If the decoder cannot be read, or is of another dimension or of prompts of another size.
    pub(crate) fn new(
        decoder: &str,
        dimension: Option<usize>,
        [length, d]: [usize; 2],
        context: &InitContext<'_>,
    ) -> Result<Self> {
        let decoder = file::decoder(decoder, dimension, [length, d], context.device)?.no_grad();
        let start = Distribution::Normal(0.0, 0.02);
        let vector = context.random([decoder.intrinsic_dimension()], start);
        Ok(Self { vector: Param::from_tensor(vector), decoder })
    }

    /// The prompt, `[L, d]`, for as wide a model.
    pub(crate) fn prompt(&self, d: usize) -> Tensor<2> {
        let values = self.decoder.decode(self.vector.val().unsqueeze());
        let length = self.decoder.num_values() / d;
        values.reshape([length, d])
    }

    /// The tensors of a run that is not finished.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>) {
        file.param("intrinsic_prompt.vector", &mut self.vector, Layout::AsIs);
        self.decoder.exchange(file, "intrinsic_prompt.decoder");
    }
}
