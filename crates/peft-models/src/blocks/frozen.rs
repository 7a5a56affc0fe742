//! Frozen layers that ask the method at each use.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{Activation, FrozenWeight, Layout, LinearLayer, NormLayer, Role, Site};

use crate::Result;
use crate::checkpoint::Loader;
use crate::forward::Run;

/// What a linear layer is in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearForm {
    /// A weight `[d_out, d_in]` and a bias.
    Biased,
    /// A weight `[d_out, d_in]`.
    Unbiased,
    /// A weight `[d_in, d_out]` and a bias (GPT-2's `Conv1D`).
    Conv1d,
}

impl LinearForm {
    /// PyTorch's `Linear`.
    pub fn with_bias(bias: bool) -> Self {
        if bias { Self::Biased } else { Self::Unbiased }
    }
}

/// A frozen linear layer.
#[derive(Debug, Clone)]
pub struct FrozenLinear {
    site: Arc<Site>,
    weight: FrozenWeight,
    bias: Option<Tensor<1>>,
}

impl FrozenLinear {
    /// Takes `path.weight` and, where the form has one, `path.bias`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        [d_in, d_out]: [usize; 2],
        form: LinearForm,
    ) -> Result<Self> {
        let layout = match form {
            LinearForm::Conv1d => Layout::AsIs,
            LinearForm::Biased | LinearForm::Unbiased => Layout::Transposed,
        };
        let weight = loader.weight(&format!("{path}.weight"), [d_in, d_out], layout)?;
        let has_bias = form != LinearForm::Unbiased;
        let bias = has_bias.then(|| loader.vector(&format!("{path}.bias"), d_out)).transpose()?;
        if form != LinearForm::Conv1d {
            return Ok(Self::new(loader, path, role, layer, weight, bias));
        }
        let site = loader.base().conv1d(path, role, layer, weight.clone(), bias.clone());
        Ok(Self { site, weight, bias })
    }

    /// A layer with these tensors.
    pub fn new(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        weight: FrozenWeight,
        bias: Option<Tensor<1>>,
    ) -> Self {
        let site = loader.base().linear(path, role, layer, weight.clone(), bias.clone());
        Self { site, weight, bias }
    }

    /// `[tokens, d_in]` to `[tokens, d_out]`.
    pub fn forward(&self, input: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        self.activated(None, input, run)
    }

    /// The same with an activation of the output.
    pub fn activated(
        &self,
        activation: Option<Activation>,
        input: Tensor<2>,
        run: Run<'_>,
    ) -> Tensor<2> {
        self.apply(self.layer().activated(activation), input, run)
    }

    /// The same where only gradients are wanted, and the output may be any numbers.
    pub fn unread(&self, is_unread: bool, input: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        self.apply(self.layer().unread(is_unread), input, run)
    }

    fn layer(&self) -> LinearLayer<'_> {
        LinearLayer::new(&self.site, &self.weight, self.bias.as_ref())
    }

    fn apply(&self, layer: LinearLayer<'_>, input: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        run.hooks.linear(&self.site, &run.pass).apply(&layer, input, &run.pass)
    }
}

/// What a norm computes, with its epsilon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormForm {
    /// A layer norm with a bias.
    Layer(f64),
    /// An RMS norm: no mean, and no bias.
    Rms(f64),
}

/// A frozen norm.
#[derive(Debug, Clone)]
pub struct FrozenNorm {
    site: Arc<Site>,
    gain: Tensor<1>,
    bias: Option<Tensor<1>>,
    form: NormForm,
}

impl FrozenNorm {
    /// Takes its tensors, see [`Loader::norm_names`].
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        d: usize,
        form: NormForm,
    ) -> Result<Self> {
        let [gain, bias] = loader.norm_names(path);
        let gain = loader.vector(&format!("{path}.{gain}"), d)?;
        let bias = match form {
            NormForm::Layer(_) => Some(loader.vector(&format!("{path}.{bias}"), d)?),
            NormForm::Rms(_) => None,
        };
        Ok(Self::new(loader, path, role, layer, gain, bias, form))
    }

    /// A norm with this gain and bias.
    pub fn new(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        gain: Tensor<1>,
        bias: Option<Tensor<1>>,
        form: NormForm,
    ) -> Self {
        let site = loader.base().norm(path, role, layer, gain.clone(), bias.clone());
        Self { site, gain, bias, form }
    }

    /// The handle that hooks are given.
    pub(super) fn layer(&self) -> NormLayer<'_> {
        match self.form {
            NormForm::Layer(epsilon) => {
                NormLayer::new(&self.site, &self.gain, self.bias.as_ref(), epsilon)
            }
            NormForm::Rms(epsilon) => NormLayer::rms(&self.site, &self.gain, epsilon),
        }
    }

    /// `[tokens, d]` to the same.
    pub fn forward(&self, input: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        self.layer().forward(&run.hooks.norm(&self.site, &run.pass), input, &run.pass)
    }
}

/// Where a causal language model has its head.
const HEAD: &str = "lm_head.weight";

/// A frozen embedding.
#[derive(Debug, Clone)]
pub struct FrozenEmbedding {
    site: Arc<Site>,
    weight: FrozenWeight,
}

impl FrozenEmbedding {
    /// Takes `path.weight`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        shape: [usize; 2],
    ) -> Result<Self> {
        let mut name = format!("{path}.weight");
        // A table that the head shares may be stored under the head's name alone.
        if role == Role::WordEmbedding && !loader.has(&name) && loader.has(HEAD) {
            name = HEAD.into();
        }
        let weight = match role {
            Role::WordEmbedding => loader.table(&name, shape)?,
            _ => loader.matrix(&name, shape)?.into(),
        };
        let site = loader.base().embedding(path, role, weight.clone());
        Ok(Self { site, weight })
    }

    /// Where it is.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The frozen table, `[entries, d]`.
    pub fn weight(&self) -> &FrozenWeight {
        &self.weight
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.weight.dims()[0]
    }

    /// An index for each token to `[tokens, d]`.
    pub fn forward(&self, indices: &[usize], run: Run<'_>) -> Tensor<2> {
        run.hooks.table(&self.site, &run.pass).lookup(&self.weight, indices, &run.pass)
    }
}
