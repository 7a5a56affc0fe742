//! Parameters that are no numbers any more.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The first trained parameter of a module, by path, that holds a value which is infinite or no
/// number. A loss that is finite does not say that the step after it is.
pub(crate) fn first_not_finite(module: &impl Module) -> Option<String> {
    struct Find {
        path: Vec<String>,
        found: Option<String>,
    }
    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.found.is_none() && param.is_require_grad() {
                let values = param.base().into_data();
                if !values.iter::<f32>().all(f32::is_finite) {
                    self.found = Some(self.path.join("."));
                }
            }
        }
    }
    let mut find = Find { path: Vec::new(), found: None };
    module.visit(&mut find);
    find.found
}
