//! Gradients of all parameters together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// The trained parameters of a module that got no gradient, by path.
pub(crate) fn without_gradient(module: &impl Module, gradients: &GradientsParams) -> Vec<String> {
    struct Find<'g> {
        gradients: &'g GradientsParams,
        path: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() && self.gradients.get::<D>(param.id).is_none() {
                self.found.push(self.path.join("."));
            }
        }
    }
    let mut find = Find { gradients, path: Vec::new(), found: Vec::new() };
    module.visit(&mut find);
    find.found
}

/// Multiplies every gradient by `factor`.
pub(crate) fn scale(module: &impl Module, gradients: &mut GradientsParams, factor: f64) {
    struct Scale<'g>(&'g mut GradientsParams, f64);
    impl ModuleVisitor for Scale<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.remove::<D>(param.id) {
                self.0.register(param.id, gradient * self.1);
            }
        }
    }
    module.visit(&mut Scale(gradients, factor));
}

/// Scales the gradient of all parameters together down to the norm `max_norm`, if it is longer.
///
/// Burn's clipping bounds each parameter's gradient by itself, which changes its direction.
pub(crate) fn clip(module: &impl Module, gradients: &mut GradientsParams, max_norm: f64) {
    struct Norm<'g>(&'g GradientsParams, f64);
    impl ModuleVisitor for Norm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1 += gradient.square().sum().into_scalar::<f64>();
            }
        }
    }
    let mut norm = Norm(gradients, 0.0);
    module.visit(&mut norm);
    let norm = norm.1.sqrt();
    if norm > max_norm {
        scale(module, gradients, max_norm / (norm + 1e-6));
    }
}
