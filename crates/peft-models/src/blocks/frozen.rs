//! Frozen layers that ask the method at each use.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, module::embedding};
use peft_core::{LinearLayer, NormLayer, ResidualLayer, ResidualStates, Role, Site, SiteKind};

use super::Pass;
use crate::Result;
use crate::checkpoint::Loader;

/// A frozen linear layer.
#[derive(Debug, Clone)]
pub struct FrozenLinear {
    site: Arc<Site>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl FrozenLinear {
    /// Takes `path.weight` (`[d_out, d_in]` in the checkpoint) and `path.bias`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        [d_in, d_out]: [usize; 2],
    ) -> Result<Self> {
        let weight = loader.matrix(&format!("{path}.weight"), [d_out, d_in])?.transpose();
        // Row-major `[d_in, d_out]`, as products want it.
        let weight = Tensor::from_data(weight.into_data(), loader.device());
        let bias = loader.vector(&format!("{path}.bias"), d_out)?;
        Ok(Self::new(loader, path, role, layer, weight, Some(bias)))
    }

    /// A layer with these tensors.
    pub fn new(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Self {
        let site = loader.base().linear(path, role, layer, weight.clone(), bias.clone());
        Self { site, weight, bias }
    }

    /// `[batch, tokens, d_in]` to `[batch, tokens, d_out]`.
    pub fn forward(&self, input: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        let layer = LinearLayer::new(&self.site, &self.weight, self.bias.as_ref());
        pass.hooks.linear(&layer, input)
    }
}

/// A frozen layer norm.
#[derive(Debug, Clone)]
pub struct FrozenNorm {
    site: Arc<Site>,
    gain: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
}

impl FrozenNorm {
    /// Takes `path.weight` and `path.bias`, or the `gamma` and `beta` of old checkpoints.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        d: usize,
        epsilon: f64,
    ) -> Result<Self> {
        let old = loader.has(&format!("{path}.gamma"));
        let (gain, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let gain = loader.vector(&format!("{path}.{gain}"), d)?;
        let bias = loader.vector(&format!("{path}.{bias}"), d)?;
        Ok(Self::new(loader, path, role, layer, [gain, bias], epsilon))
    }

    /// A norm with this gain and bias.
    pub fn new(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        layer: Option<usize>,
        [gain, bias]: [Tensor<1>; 2],
        epsilon: f64,
    ) -> Self {
        let site = loader.base().norm(path, role, layer, gain.clone(), Some(bias.clone()));
        Self { site, gain, bias, epsilon }
    }

    fn layer(&self) -> NormLayer<'_> {
        NormLayer::new(&self.site, &self.gain, Some(&self.bias), self.epsilon)
    }

    /// `[batch, tokens, d]` to the same.
    pub fn forward(&self, input: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        pass.hooks.norm(&self.layer(), input)
    }
}

/// A frozen embedding.
#[derive(Debug, Clone)]
pub struct FrozenEmbedding {
    weight: Tensor<2>,
}

impl FrozenEmbedding {
    /// Takes `path.weight`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        role: Role,
        shape: [usize; 2],
    ) -> Result<Self> {
        let weight = loader.matrix(&format!("{path}.weight"), shape)?;
        loader.base().embedding(path, role, weight.clone());
        Ok(Self { weight })
    }

    /// The table, `[entries, d]`.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.clone()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.weight.dims()[0]
    }

    /// `[batch, tokens]` indices to `[batch, tokens, d]`.
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.weight.clone(), indices)
    }
}

/// The end of a post-norm sublayer: `norm(residual + output)`.
#[derive(Debug, Clone)]
pub struct Sublayer {
    site: Arc<Site>,
    norm: FrozenNorm,
}

impl Sublayer {
    /// Loads the norm at `norm_path`; the sublayer's own path is that of the module around it.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        norm_path: &str,
        [role, norm_role]: [Role; 2],
        layer: usize,
        d: usize,
        epsilon: f64,
    ) -> Result<Self> {
        let norm = FrozenNorm::load(loader, norm_path, norm_role, Some(layer), d, epsilon)?;
        let site = loader.base().place(path, SiteKind::Sublayer, role, Some(layer), d);
        Ok(Self { site, norm })
    }

    /// The next hidden state, `[batch, tokens, d]`.
    pub fn forward(&self, states: ResidualStates, pass: Pass<'_>) -> Tensor<3> {
        let norm = self.norm.layer();
        let layer = ResidualLayer::new(&self.site, Some(&norm), pass.hooks);
        layer.forward(pass.hooks.residual(&layer, states))
    }
}
