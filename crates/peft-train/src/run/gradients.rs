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

/// Handles on the same gradients, for whoever looks at them after a step has used them up.
pub(crate) fn copied(module: &impl Module, gradients: &GradientsParams) -> GradientsParams {
    struct Copy<'g>(&'g GradientsParams, GradientsParams);
    impl ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.register(param.id, gradient);
            }
        }
    }
    let mut copy = Copy(gradients, GradientsParams::new());
    module.visit(&mut copy);
    copy.1
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
    struct Squares<'g>(&'g GradientsParams, Vec<Tensor<1>>);
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.push(gradient.square().sum());
            }
        }
    }
    let mut squares = Squares(gradients, Vec::new());
    module.visit(&mut squares);
    if squares.1.is_empty() {
        return;
    }
    // One read for all.
    let squares = Tensor::cat(squares.1, 0).into_data().convert::<f64>();
    let norm = squares.iter::<f64>().sum::<f64>().sqrt();
    if norm > max_norm {
        scale(module, gradients, max_norm / (norm + 1e-6));
    }
}
