#![doc = include_str!("../README.md")]

mod kronecker;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Edits, Error, Exchange, Hooks, InitContext, Layout, Method, MethodConfig, Pass, Result,
    Role, Site, Targets,
};
use serde::{Deserialize, Serialize};

pub use kronecker::{KronA, KronAConfig};

/// The layers that are adapted unless `target_modules` says otherwise.
const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value, Role::QueryKeyValue];

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
    const ABOUT: &'static str = "one factor per input and per output of each layer";
    const LEARNING_RATE: f64 = 5e-3;
    type Method = Scale;

    fn validate(&self) -> Result<()> {
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Scale> {
        let mut layers = vec![None; context.base.len()];
        for site in self.targets.resolve(context.base, DEFAULT_ROLES)? {
            let ones = |d| Param::from_tensor(Tensor::ones([d], context.device));
            layers[site.index] = Some(site.shape.map(ones));
        }
        Ok(Scale { layers })
    }
}

/// `y = ((x ⊙ a) W + c) ⊙ b`. Created with [`ScaleConfig`].
#[derive(Module, Debug)]
pub struct Scale {
    /// `a` (`[d_in]`) and `b` (`[d_out]`), by [`Site::index`].
    layers: Vec<Option<[Param<Tensor<1>>; 2]>>,
}

impl Hooks for Scale {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some([a, b]) = &self.layers[site.index] else { return Edits::none() };
        let input = peft_core::Scale::input(a.val());
        Edits::from(input).then(peft_core::Scale::output(b.val()))
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
}
