//! AdapterFusion.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor, activation::softmax, module::linear};

use super::{FusionConfig, members_for_rows};
use crate::{
    Base, BoxedMethod, Change, Exchange, Hooks, Key, Layout, Method, Probe, ResidualLayer,
    ResidualStates, Role, Site,
};

/// Attention over what adapters add to a sublayer (AdapterFusion, Pfeiffer et al. 2021,
/// arXiv 2005.00247, §3.2). With `zₙ` (`[batch, tokens, d]`) the output of adapter `n`, and `x` what
/// the adapters read:
///
/// `output + Σₙ softmaxₙ((x Q + b)·(zₙ K + c)) zₙ V`.
///
/// `Q`, `K` and `V` are `[d, d]`. The adapters stay as they are; only the projections are trained,
/// and only they are in the file. Created with [`FusionConfig`], then put over its adapters with
/// [`over`](Self::over).
#[derive(Module, Debug)]
pub struct Fuse {
    methods: Vec<BoxedMethod>,
    /// By [`Site::index`].
    layers: Vec<Option<FusionLayer>>,
    dropout: Dropout,
    #[module(skip)]
    config: FusionConfig,
    #[module(skip)]
    probe: Option<Probe>,
}

#[derive(Module, Debug)]
struct FusionLayer {
    query: Option<Projection>,
    key: Option<Projection>,
    /// `V`, `[d, d]`.
    value: Option<Param<Tensor<2>>>,
}

#[derive(Module, Debug)]
struct Projection {
    /// `[d, d]`.
    weight: Param<Tensor<2>>,
    /// `[d]`.
    bias: Param<Tensor<1>>,
}

impl Projection {
    fn new(d: usize, device: &Device) -> Self {
        let weight = Tensor::random([d, d], Distribution::Normal(0.0, 0.02), device);
        let bias = Tensor::zeros([d], device);
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

impl FusionLayer {
    fn new(config: &FusionConfig, d: usize, device: &Device) -> Self {
        let value = || {
            let start = if config.value_initialized {
                // One on the diagonal, a millionth elsewhere.
                Tensor::<2>::eye(d, device) * (1.0 - 1e-6) + 1e-6
            } else {
                Tensor::random([d, d], Distribution::Normal(0.0, 0.02), device)
            };
            Param::from_tensor(start)
        };
        Self {
            query: config.query.then(|| Projection::new(d, device)),
            key: config.key.then(|| Projection::new(d, device)),
            value: config.value.then(value),
        }
    }
}

impl Fuse {
    /// The projections at every sublayer that `config` names, over no adapters yet.
    pub(super) fn new(config: &FusionConfig, base: &Base, device: &Device) -> Self {
        let mut layers = vec![None; base.len()];
        for site in base.sites() {
            let fused = match site.role {
                Role::AttentionSublayer => config.mh_adapter,
                Role::FeedForwardSublayer => config.output_adapter,
                _ => false,
            };
            if fused {
                layers[site.index] = Some(FusionLayer::new(config, site.d_out(), device));
            }
        }
        Self {
            methods: Vec::new(),
            layers,
            dropout: DropoutConfig::new(config.dropout_prob.unwrap_or(0.0)).init(),
            config: config.clone(),
            probe: None,
        }
    }

    /// The fusion over these adapters, which stay as they are.
    pub fn over(self, methods: Vec<BoxedMethod>) -> Self {
        Self { methods: methods.into_iter().map(BoxedMethod::frozen).collect(), ..self }
    }
}

impl Hooks for Fuse {
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let fusion = self.layers.get(layer.site().index).and_then(Option::as_ref);
        let (Some(fusion), Some(last)) = (fusion, self.methods.last()) else { return states };
        let added: Vec<Tensor<3>> = self
            .methods
            .iter()
            .map(|m| m.residual(layer, states.clone()).output - states.output.clone())
            .collect();
        let query = match self.config.query_before_ln {
            true => states.output.clone(),
            false => last.residual_input(layer, &states),
        };
        let query = fusion.query.as_ref().map_or(query.clone(), |q| q.forward(query));
        let scores = added.iter().map(|z| {
            let key = fusion.key.as_ref().map_or(z.clone(), |k| k.forward(z.clone()));
            (query.clone() * key).sum_dim(2)
        });
        // `[batch, tokens, adapters]`
        let scores = self.dropout.forward(Tensor::cat(scores.collect(), 2));
        let attention = softmax(scores, 2);
        if let Some(probe) = &self.probe {
            let [batch, tokens, count] = attention.dims();
            let rows = attention.clone().reshape([batch * tokens, count]);
            probe.record(layer.site(), "fusion", rows);
        }
        let valued = |z: Tensor<3>| match &fusion.value {
            Some(value) => linear(z, value.val(), None),
            None => z,
        };
        let before = self.config.value_before_softmax;
        let terms = added.into_iter().enumerate().map(|(n, z)| {
            let z = if self.config.residual_before { z + states.output.clone() } else { z };
            let z = if before { valued(z) } else { z };
            z * attention.clone().narrow(2, n, 1)
        });
        let context = terms.reduce(|sum, term| sum + term).expect("a fusion has adapters");
        let context = if before { context } else { valued(context) };
        let output = match self.config.residual_before {
            true => context,
            false => states.output + context,
        };
        ResidualStates { output, ..states }
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        match self.methods.last() {
            Some(last) => last.residual_input(layer, states),
            None => layer.forward(states.clone()),
        }
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        let methods = members_for_rows(&self.methods, rows)?;
        Some(BoxedMethod::new(Self { methods, ..self.clone() }))
    }
}

impl Method for Fuse {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let key = |name: &str| {
                Key::from(site.key(&format!("fusion.{name}")))
                    .hub(format!("{}.adapter_fusion_layer.{{}}.{name}", site.path))
            };
            for (name, projection) in [("query", &mut layer.query), ("key", &mut layer.key)] {
                if let Some(Projection { weight, bias }) = projection {
                    file.param(key(&format!("{name}.weight")), weight, Layout::Transposed);
                    file.param(key(&format!("{name}.bias")), bias, Layout::AsIs);
                }
            }
            if let Some(value) = &mut layer.value {
                file.param(key("value.weight"), value, Layout::Transposed);
            }
        }
    }

    fn change(&self, _site: &Site) -> Change {
        Change::default()
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("its attention over the adapters depends on the input".into())
    }

    fn penalty(&self) -> Option<Tensor<1>> {
        let values = self.layers.iter().flatten().filter_map(|layer| layer.value.as_ref());
        let terms = values.map(|value| {
            let value = value.val();
            let identity = Tensor::eye(value.dims()[0], &value.device());
            (value - identity).square().sum() * 0.01
        });
        terms.reduce(|sum, term| sum + term).filter(|_| self.config.regularization)
    }

    fn observe(&mut self, probe: &Probe) {
        self.probe = Some(probe.clone());
        for method in &mut self.methods {
            method.observe(probe);
        }
    }
}
