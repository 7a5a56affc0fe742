//! AdapterFusion.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor, activation::softmax, module::linear};
use peft_core::{
    Base, BoxedMethod, Exchange, Hooks, InitContext, Insert, Key, Layout, LossContext, Method,
    Pass, Result, Role, Site, SublayerEnd, SublayerFunction,
};

use crate::FusionConfig;

/// Attention over what adapters add to a sublayer (AdapterFusion, Pfeiffer et al. 2021,
/// arXiv 2005.00247, §3.2). With `zₙ` (`[tokens, d]`) the output of adapter `n`, and `x` what
/// the adapters read:
///
/// `output + Σₙ softmaxₙ((x Q + b)·(zₙ K + c)) zₙ V`.
///
/// `Q`, `K` and `V` are `[d, d]`. The adapters stay as they are; only the projections are trained,
/// and only they are in the file. Created with [`FusionConfig`], then put over its adapters, which
/// it [takes into itself](Method::adopt).
#[derive(Module, Debug)]
pub struct Fuse {
    methods: Vec<BoxedMethod>,
    /// By [`Site::index`].
    layers: Vec<Option<FusionLayer>>,
    #[module(skip)]
    config: FusionConfig,
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
    fn new(d: usize, context: &InitContext<'_>) -> Self {
        let weight = context.random([d, d], Distribution::Normal(0.0, 0.02));
        let bias = Tensor::zeros([d], context.device);
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

impl FusionLayer {
    fn new(config: &FusionConfig, d: usize, context: &InitContext<'_>) -> Self {
        let value = || {
            let start = if config.value_initialized {
                // One on the diagonal, a millionth elsewhere.
                Tensor::<2>::eye(d, context.device) * (1.0 - 1e-6) + 1e-6
            } else {
                context.random([d, d], Distribution::Normal(0.0, 0.02))
            };
            Param::from_tensor(start)
        };
        Self {
            query: config.query.then(|| Projection::new(d, context)),
            key: config.key.then(|| Projection::new(d, context)),
            value: config.value.then(value),
        }
    }
}

impl Fuse {
    /// The projections at every sublayer that `config` names, over no adapters yet.
    pub(super) fn new(config: &FusionConfig, context: &InitContext<'_>) -> Self {
        let base = context.base;
        let mut layers = vec![None; base.len()];
        for site in base.sites() {
            let fused = match site.role {
                Role::AttentionSublayer => config.mh_adapter,
                Role::FeedForwardSublayer => config.output_adapter,
                _ => false,
            };
            if fused {
                layers[site.index] = Some(FusionLayer::new(config, site.d_out(), context));
            }
        }
        Self { methods: Vec::new(), layers, config: config.clone() }
    }
}

/// The fusion at one sublayer.
#[derive(Debug)]
struct Fused<'a> {
    layer: &'a FusionLayer,
    config: &'a FusionConfig,
    /// What the adapters do there; at least one does something.
    members: Vec<Insert<'a>>,
}

impl SublayerFunction for Fused<'_> {
    fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        let Self { layer, config, members } = self;
        // Gates beside the adapters mean nothing here, as in the reference.
        let added = members.iter().map(|member| member.ungated().update(end, pass));
        let added: Vec<Tensor<2>> = added.collect();
        let query = if config.query_before_ln { end.output.clone() } else { self.reads(end, pass) };
        let query = match &layer.query {
            Some(projection) => projection.forward(query),
            None => query,
        };
        let scores = added.iter().map(|z| {
            let key = layer.key.as_ref().map_or(z.clone(), |key| key.forward(z.clone()));
            (query.clone() * key).sum_dim(1)
        });
        // `[tokens, adapters]`
        let scores = Tensor::cat(scores.collect(), 1);
        let attention = softmax(pass.dropout(scores, config.dropout_prob.unwrap_or(0.0)), 1);
        pass.record(end.site(), "fusion", || attention.clone());
        let valued = |z: Tensor<2>| match &layer.value {
            Some(value) => linear(z, value.val(), None),
            None => z,
        };
        let before = config.value_before_softmax;
        let residual = self.residual(end, pass);
        let terms = added.into_iter().enumerate().map(|(n, z)| {
            let z = if config.residual_before { z + residual.clone() } else { z };
            let z = if before { valued(z) } else { z };
            z * attention.clone().narrow(1, n, 1)
        });
        let context = terms.reduce(|sum, term| sum + term).expect("a fusion has adapters");
        let context = if before { context } else { valued(context) };
        if config.residual_before { context - residual } else { context }
    }

    fn residual(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.members.last().unwrap_or(&Insert::None).residual(end, pass)
    }

    fn reads(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.members.last().unwrap_or(&Insert::None).reads(end, pass)
    }
}

impl Hooks for Fuse {
    fn sublayer<'a>(&'a self, site: &Site, pass: &Pass<'_>) -> Insert<'a> {
        let members: Vec<Insert<'a>> =
            self.methods.iter().map(|method| method.sublayer(site, pass)).collect();
        match self.layers.get(site.index) {
            Some(Some(layer)) if !members.iter().all(Insert::is_none) => {
                Insert::of(Fused { layer, config: &self.config, members })
            }
            _ => Insert::None,
        }
    }

    fn needs_padding(&self) -> bool {
        self.methods.iter().any(Hooks::needs_padding)
    }

    fn needs_every_token(&self) -> bool {
        self.methods.iter().any(Hooks::needs_every_token)
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
                    .adapters(format!("{}.adapter_fusion_layer.{{}}.{name}", site.path))
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

    fn merge_obstacle(&self) -> Option<String> {
        Some("its attention over the adapters depends on the input".into())
    }

    fn loss(&self, _context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        let values = self.layers.iter().flatten().filter_map(|layer| layer.value.as_ref());
        let terms = values.map(|value| {
            let value = value.val();
            let identity = Tensor::eye(value.dims()[0], &value.device());
            (value - identity).square().sum() * 0.01
        });
        Ok(terms.reduce(|sum, term| sum + term).filter(|_| self.config.regularization))
    }

    fn adopt(&mut self, below: Vec<BoxedMethod>) -> Vec<BoxedMethod> {
        self.methods.extend(below.into_iter().map(BoxedMethod::frozen));
        Vec::new()
    }
}
