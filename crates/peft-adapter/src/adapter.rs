//! The adapter at the end of one sublayer.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::Tensor;
use peft_core::{Activation, Exchange, InitContext, Key, Layout, Pass, Site};

use crate::projection::{Position, Projection, Shared};
use crate::{BottleneckConfig, Scaling};

/// The adapter at one site, `s f(x)` with `f(x) = act(x W_d + b_d) W_u + b_u`.
#[derive(Module, Debug)]
pub struct AdapterLayer {
    /// `W_d`, `[d, m]`, and `b_d`.
    pub down: Projection,
    /// `W_u`, `[m, d]`, and `b_u`.
    pub up: Projection,
    /// The trained scale, `[1]` or `[d]`; `None` if it is fixed.
    pub scale: Option<Param<Tensor<1>>>,
    /// The norm of what the adapter is given (`ln_before`).
    pub norm_before: Option<LayerNorm>,
    /// The norm of what it returns (`ln_after`).
    pub norm_after: Option<LayerNorm>,
    #[module(skip)]
    stochastic_depth: f64,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    fixed_scale: f64,
    #[module(skip)]
    activation: Activation,
}

impl AdapterLayer {
    pub(crate) fn new(
        config: &BottleneckConfig,
        [d, bottleneck]: [usize; 2],
        context: &InitContext<'_>,
    ) -> Self {
        let device = context.device;
        let norm = |wanted: bool| wanted.then(|| LayerNormConfig::new(d).init(device));
        let ones = |size: usize| Param::from_tensor(Tensor::ones([size], device));
        let (scale, fixed_scale) = match config.scaling {
            Scaling::Fixed(scale) => (None, scale),
            Scaling::Learned => (Some(ones(1)), 1.0),
            Scaling::Channel => (Some(ones(d)), 1.0),
        };
        Self {
            down: Projection::new(config, Position::Down, [d, bottleneck], context),
            up: Projection::new(config, Position::Up, [bottleneck, d], context),
            scale,
            norm_before: norm(config.ln_before),
            norm_after: norm(config.ln_after),
            stochastic_depth: config.stochastic_depth,
            dropout: config.dropout,
            fixed_scale,
            activation: config.non_linearity,
        }
    }

    /// `s f(x)`, with dropout in training, for `x` of shape `[tokens, d]`.
    pub(crate) fn update(
        &self,
        input: Tensor<2>,
        shared: Shared<'_>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let input = match &self.norm_before {
            Some(norm) => norm.forward(input),
            None => input,
        };
        let inner = self.activation.forward(self.down.forward(input, shared, pass));
        let output = self.up.forward(inner, shared, pass);
        let output = pass.drop_texts(output, self.stochastic_depth);
        let scaled = match &self.scale {
            Some(scale) => output * scale.val().unsqueeze(),
            None if self.fixed_scale == 1.0 => output,
            None => output * self.fixed_scale,
        };
        pass.dropout(scaled, self.dropout)
    }

    /// The update with its residual connection, before or after `ln_after`.
    pub(crate) fn join(
        &self,
        update: Tensor<2>,
        residual: Tensor<2>,
        residual_before_norm: bool,
    ) -> Tensor<2> {
        match &self.norm_after {
            Some(norm) if residual_before_norm => norm.forward(update + residual),
            Some(norm) => norm.forward(update) + residual,
            None => update + residual,
        }
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site) {
        let key = |name: &str, adapters: &str| {
            let theirs = format!("{}.adapters.{{}}.{adapters}", site.path);
            Key::from(site.key(name)).adapters(theirs)
        };
        // In the reference the projection down is the first of a sequence.
        self.down.exchange(file, |leaf| {
            key(&format!("adapter_down.{leaf}"), &format!("adapter_down.0.{leaf}"))
        });
        self.up.exchange(file, |leaf| {
            let name = format!("adapter_up.{leaf}");
            key(&name, &name)
        });
        if let Some(scale) = &mut self.scale {
            file.param(key("adapter_scaling", "scaling"), scale, Layout::AsIs);
        }
        for (name, norm) in [
            ("adapter_norm_before", &mut self.norm_before),
            ("adapter_norm_after", &mut self.norm_after),
        ] {
            let Some(norm) = norm else { continue };
            let (gain, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            file.param(key(&gain, &gain), &mut norm.gamma, Layout::AsIs);
            if let Some(beta) = &mut norm.beta {
                file.param(key(&bias, &bias), beta, Layout::AsIs);
            }
        }
    }
}
