#![doc = include_str!("../README.md")]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, module::linear};
use peft_core::{
    Base, Change, Error, Exchange, Hooks, Layout, LinearLayer, Method, MethodConfig, Result, Role,
    Site, Targets,
};
use serde::{Deserialize, Serialize};

/// The layers that are rescaled unless `target_modules` says otherwise.
const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value];

/// Configuration of [`Scale`]: the fields of [`Targets`] choose the layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScaleConfig {
    /// What is adapted; queries and values by default.
    #[serde(flatten)]
    pub targets: Targets,
}

impl MethodConfig for ScaleConfig {
    const NAME: &'static str = "scale";
    const PEFT_TYPE: &'static str = "SCALE";
    const ABOUT: &'static str = "one factor per input and per output of each weight";
    const LEARNING_RATE: f64 = 5e-3;
    type Method = Scale;

    fn validate(&self) -> Result<()> {
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn init(&self, base: &Base, device: &Device) -> Result<Scale> {
        let mut layers = vec![None; base.len()];
        for site in self.targets.resolve(base, DEFAULT_ROLES)? {
            let ones = |d| Param::from_tensor(Tensor::ones([d], device));
            layers[site.index] = Some(site.shape.map(ones));
        }
        Ok(Scale { layers })
    }
}

/// `W' = diag(a) W diag(b)`. Created with [`ScaleConfig`].
#[derive(Module, Debug)]
pub struct Scale {
    /// `a` (`[d_in]`) and `b` (`[d_out]`), by [`Site::index`].
    layers: Vec<Option<[Param<Tensor<1>>; 2]>>,
}

impl Scale {
    /// `a bᵀ`, `[d_in, d_out]`, at an adapted site.
    fn factors(&self, site: &Site) -> Option<Tensor<2>> {
        let [a, b] = self.layers[site.index].as_ref()?;
        Some(a.val().unsqueeze_dim::<2>(1) * b.val().unsqueeze())
    }
}

impl Hooks for Scale {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        Some(layer.weight() * self.factors(layer.site())?)
    }

    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        Some(layer.weight() / self.factors(layer.site())?)
    }

    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        let Some([a, b]) = &self.layers[layer.site().index] else { return layer.forward(input) };
        let scaled = linear(input * a.val().unsqueeze(), layer.weight(), None);
        let output = scaled * b.val().unsqueeze();
        match layer.bias() {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }
}

impl Method for Scale {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some([a, b]) = &mut self.layers[site.index] else { continue };
            file.param(site.key("scale_in"), a, Layout::AsIs);
            file.param(site.key("scale_out"), b, Layout::AsIs);
        }
    }

    fn change(&self, site: &Site) -> Change {
        let [d_in, d_out] = site.shape;
        match self.layers[site.index] {
            Some(_) => Change { weight: d_in * d_out, bias: 0, rank: d_in.min(d_out) },
            None => Change::default(),
        }
    }
}
