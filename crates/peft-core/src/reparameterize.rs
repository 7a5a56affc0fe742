//! A method on an arbitrary Burn module, through Burn's own reparameterization.
//!
//! This is the only file that touches Burn's mechanism, which changes between minor versions.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;

use crate::{
    AnyConfig, Base, BoxedMethod, EmptyPass, Error, FrozenWeight, Hooks, InitContext, LinearLayer,
    Result, Role, Site, merge_obstacle,
};

/// A method at one weight matrix of a Burn module: the parameter's value becomes the
/// weight under the method's [`Edits`](crate::Edits).
#[derive(Module, Debug)]
pub struct Reparameterized {
    method: BoxedMethod,
    #[module(skip)]
    site: Arc<Site>,
}

impl Reparameterization for Reparameterized {
    const NAME: &'static str = "peft";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        let weight = base.reshape(self.site.shape);
        let frozen = FrozenWeight::from(weight.clone());
        let parts = EmptyPass::new(&weight.device());
        let edits = self.method.linear(&self.site, &parts.pass());
        edits.dense(&LinearLayer::new(&self.site, &frozen, None)).0.reshape(shape)
    }
}

/// Attaches a method to the weight matrices of any Burn module, and freezes everything else.
///
/// Paths are the module's own (`encoder.layers.0.weight` is the site `encoder.layers.0`), and the
/// configuration's targets choose among its matrices `[d_in, d_out]`. The module runs as it did,
/// without a change to its code; [`Module::materialize`] folds the method in.
///
/// This is the dense form: Burn composes the weight in each forward pass, and an input is never
/// seen, so there is no dropout inside the method and nothing but the weight is adapted.
///
/// # Errors
/// If the configuration is invalid, chooses nothing, or configures a method that states no change
/// to a weight.
pub fn reparameterize<M: Module>(module: M, config: &dyn AnyConfig) -> Result<M> {
    let device = module.devices().first().cloned().unwrap_or_default();
    let mut collect = Matrices { base: Base::new(&device), path: Vec::new() };
    module.visit(&mut collect);
    let base = collect.base;
    let context = InitContext::new(&base, &device);
    let whole = config.init(&context)?;
    if let Some(reason) = merge_obstacle(&whole, &base) {
        return Err(Error::Merge { method: config.name().into(), reason });
    }
    let mut attach = Attach { sites: Vec::new() };
    for site in base.linears() {
        if !whole.linear(site, &EmptyPass::new(&device).pass()).is_none() {
            // Burn keeps state at each parameter, so each gets a method of its own.
            let own = base.without(|other| other.index != site.index);
            let method = config.init(&context.over(&own))?;
            attach.sites.push(Reparameterized { method, site: site.clone() });
        }
    }
    Ok(module.apply_reparameterization(attach))
}

struct Matrices {
    base: Base,
    path: Vec<String>,
}

impl ModuleVisitor for Matrices {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 {
            let [d_in, d_out] = param.lazy_shape().dims();
            let weight = param.base().reshape([d_in, d_out]).detach();
            self.base.linear(site_path(&self.path.join(".")), Role::Other, None, weight, None);
        }
    }
}

struct Attach {
    sites: Vec<Reparameterized>,
}

impl Reparameterizer for Attach {
    type Reparam = Reparameterized;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Reparameterized>) {
        let found = (D == 2)
            .then(|| self.sites.iter().position(|r| r.site.path == site_path(path)))
            .flatten();
        (param.set_require_grad(false), found.map(|i| self.sites.swap_remove(i)))
    }
}

fn site_path(path: &str) -> String {
    path.strip_suffix(".weight").unwrap_or(path).to_string()
}
