//! Layers as hooks receive them: the frozen module, or the frozen module with methods below.
//!
//! A hook that does not want to change a layer calls `layer.forward(..)`; one that does calls it
//! with other inputs, changes its output, or replaces it. Because the handle may already hold
//! another method, stacking needs nothing more.

use burn::tensor::{
    Tensor,
    module::{layer_norm, linear},
};

use crate::{FrozenWeight, Hooks, Site};

/// A linear layer: `y = x W + b`, with `W` of shape `[d_in, d_out]`.
#[derive(Clone, Copy)]
pub struct LinearLayer<'a> {
    site: &'a Site,
    weight: &'a FrozenWeight,
    bias: Option<&'a Tensor<1>>,
    below: Option<(&'a dyn Hooks, &'a LinearLayer<'a>)>,
}

impl<'a> LinearLayer<'a> {
    /// The frozen layer at `site`.
    pub fn new(site: &'a Site, weight: &'a FrozenWeight, bias: Option<&'a Tensor<1>>) -> Self {
        Self { site, weight, bias, below: None }
    }

    /// This layer with a method applied to it, for the next method to be applied above.
    pub fn with(&'a self, hooks: &'a dyn Hooks) -> LinearLayer<'a> {
        LinearLayer { below: Some((hooks, self)), ..*self }
    }

    /// Where the layer is.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// The output `[batch, tokens, d_out]` for an input `[batch, tokens, d_in]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        match self.below {
            Some((hooks, layer)) => hooks.linear(layer, input),
            None => self.weight.linear(input, self.bias.cloned()),
        }
    }

    /// `x W + b` for `[batch, tokens, d_in]`, with the weight as the methods below leave it and
    /// this bias. Unlike a product with [`weight`](Self::weight), it unpacks a packed weight only
    /// as it goes.
    pub fn with_bias(&self, input: Tensor<3>, bias: Option<Tensor<1>>) -> Tensor<3> {
        match self.below {
            Some((hooks, layer)) => match hooks.weight(layer) {
                Some(weight) => linear(input, weight, bias),
                None => layer.with_bias(input, bias),
            },
            None => self.weight.linear(input, bias),
        }
    }

    /// The weight `[d_in, d_out]`, as the methods below leave it, as a tensor; a packed one is
    /// unpacked at each call.
    pub fn weight(&self) -> Tensor<2> {
        match self.below {
            Some((hooks, layer)) => hooks.weight(layer).unwrap_or_else(|| layer.weight()),
            None => self.weight.dense(),
        }
    }

    /// The bias `[d_out]`, as the methods below leave it.
    pub fn bias(&self) -> Option<Tensor<1>> {
        match self.below {
            Some((hooks, layer)) => hooks.bias(layer).or_else(|| layer.bias()),
            None => self.bias.cloned(),
        }
    }
}

/// A norm over the last axis: a layer norm, `y = (x - mean) / sqrt(var + eps) * gain + bias`, or
/// an RMS norm, `y = x / sqrt(mean(x²) + eps) * gain`.
#[derive(Clone, Copy)]
pub struct NormLayer<'a> {
    site: &'a Site,
    gain: &'a Tensor<1>,
    bias: Option<&'a Tensor<1>>,
    epsilon: f64,
    centred: bool,
    below: Option<(&'a dyn Hooks, &'a NormLayer<'a>)>,
}

impl<'a> NormLayer<'a> {
    /// The frozen layer norm at `site`.
    pub fn new(
        site: &'a Site,
        gain: &'a Tensor<1>,
        bias: Option<&'a Tensor<1>>,
        epsilon: f64,
    ) -> Self {
        Self { site, gain, bias, epsilon, centred: true, below: None }
    }

    /// The frozen RMS norm at `site`.
    pub fn rms(site: &'a Site, gain: &'a Tensor<1>, epsilon: f64) -> Self {
        Self { site, gain, bias: None, epsilon, centred: false, below: None }
    }

    /// This norm with a method applied to it, for the next method to be applied above.
    pub fn with(&'a self, hooks: &'a dyn Hooks) -> NormLayer<'a> {
        NormLayer { below: Some((hooks, self)), ..*self }
    }

    /// Where the norm is.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// The output `[batch, tokens, d]` for an input of the same shape.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        match self.below {
            Some((hooks, layer)) => hooks.norm(layer, input),
            None => self.normalize(input, self.gain.clone(), self.bias.cloned()),
        }
    }

    /// The norm itself, with another gain and bias.
    pub fn normalize(
        &self,
        input: Tensor<3>,
        gain: Tensor<1>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<3> {
        if self.centred {
            return layer_norm(input, gain, bias, self.epsilon);
        }
        let scale = (input.clone().square().mean_dim(2) + self.epsilon).sqrt().recip();
        let output = input * scale * gain.unsqueeze();
        match bias {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }

    /// The gain `[d]`, as the methods below leave it.
    pub fn gain(&self) -> Tensor<1> {
        match self.below {
            Some((hooks, layer)) => hooks.norm_gain(layer).unwrap_or_else(|| layer.gain()),
            None => self.gain.clone(),
        }
    }

    /// The bias `[d]`, as the methods below leave it.
    pub fn bias(&self) -> Option<Tensor<1>> {
        match self.below {
            Some((hooks, layer)) => hooks.norm_bias(layer).or_else(|| layer.bias()),
            None => self.bias.cloned(),
        }
    }
}

/// The three states that meet at the end of a sublayer, each `[batch, tokens, d]`.
#[derive(Debug, Clone)]
pub struct ResidualStates {
    /// What the sublayer (attention or feed-forward) was given.
    pub input: Tensor<3>,
    /// What it returned.
    pub output: Tensor<3>,
    /// What is added to that.
    pub residual: Tensor<3>,
}

/// The end of a sublayer: `norm(residual + output)`, or `residual + output` in a model that
/// normalises before the sublayer.
#[derive(Clone, Copy)]
pub struct ResidualLayer<'a> {
    site: &'a Site,
    norm: Option<&'a NormLayer<'a>>,
    hooks: &'a dyn Hooks,
}

impl<'a> ResidualLayer<'a> {
    /// The end of the sublayer at `site`, with its frozen norm, in a model under `hooks`: a method
    /// that puts its function around the norm meets the norm as methods leave it.
    pub fn new(site: &'a Site, norm: Option<&'a NormLayer<'a>>, hooks: &'a dyn Hooks) -> Self {
        Self { site, norm, hooks }
    }

    /// The same place in a model under other methods.
    pub fn under<'b>(&'b self, hooks: &'b dyn Hooks) -> ResidualLayer<'b> {
        ResidualLayer { hooks, ..*self }
    }

    /// Where the sublayer is.
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// The next hidden state, `[batch, tokens, d]`.
    pub fn forward(&self, states: ResidualStates) -> Tensor<3> {
        let sum = states.residual + states.output;
        match self.norm {
            Some(norm) => self.hooks.norm(norm, sum),
            None => sum,
        }
    }
}
