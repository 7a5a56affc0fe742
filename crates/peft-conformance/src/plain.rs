//! A plain low rank, beside which other methods are tested.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Edits, Exchange, Hooks, InitContext, Layout, LowRank, Method, MethodConfig, Pass, Result,
    Role, Site,
};
use serde::{Deserialize, Serialize};

const RANK: usize = 2;

/// `W' = W + A B` at each query, and at each projection that is a query too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PlainConfig {}

#[derive(Module, Debug)]
pub(crate) struct Plain {
    layers: Vec<Option<Factors>>,
}

#[derive(Module, Debug)]
struct Factors {
    /// `[d_in, r]`.
    a: Param<Tensor<2>>,
    /// `[r, d_out]`.
    b: Param<Tensor<2>>,
}

impl MethodConfig for PlainConfig {
    const NAME: &'static str = "plain-low-rank";
    const PEFT_TYPE: &'static str = "PLAIN_LOW_RANK";
    const ABOUT: &'static str = "a low rank at each query";
    const LEARNING_RATE: f64 = 1e-3;
    type Method = Plain;

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Plain> {
        let base = context.base;
        let mut layers = vec![None; base.len()];
        let is_query = |site: &Site| matches!(site.role, Role::Query | Role::QueryKeyValue);
        for site in base.linears().filter(|site| is_query(site)) {
            let random =
                |shape| Param::from_tensor(context.random(shape, Distribution::Normal(0.0, 0.3)));
            let [d_in, d_out] = site.shape;
            layers[site.index] =
                Some(Factors { a: random([d_in, RANK]), b: random([RANK, d_out]) });
        }
        Ok(Plain { layers })
    }
}

impl Hooks for Plain {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match self.layers.get(site.index) {
            Some(Some(Factors { a, b })) => LowRank::new(a.val(), b.val(), 1.0).into(),
            _ => Edits::none(),
        }
    }
}

impl Method for Plain {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(Some(factors)) = self.layers.get_mut(site.index) else { continue };
            file.param(site.key("plain_a"), &mut factors.a, Layout::Transposed);
            file.param(site.key("plain_b"), &mut factors.b, Layout::Transposed);
        }
    }
}
