//! A method's parameters, read and rewritten whatever its type.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};

use crate::numbers::{Normal, values};

/// One float parameter of a method.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameter {
    /// Its dotted path in the method.
    pub(crate) path: String,
    /// Whether it is trained.
    pub(crate) trained: bool,
    /// Its values, row by row.
    pub(crate) values: Vec<f32>,
}

/// The float parameters of a module, in its order.
pub(crate) fn parameters(module: &impl Module) -> Vec<Parameter> {
    let mut read = Read { path: Vec::new(), gradients: None, found: Vec::new() };
    module.visit(&mut read);
    read.found
}

/// The gradients of a module's trained parameters, in its order; those that have none have no
/// values.
pub(crate) fn gradients(module: &impl Module, loss: &Tensor<1>) -> Vec<Parameter> {
    let gradients = GradientsParams::from_grads(loss.backward(), module);
    let mut read = Read { path: Vec::new(), gradients: Some(gradients), found: Vec::new() };
    module.visit(&mut read);
    read.found.into_iter().filter(|parameter| parameter.trained).collect()
}

struct Read {
    path: Vec<String>,
    /// What to read, if not the parameters themselves.
    gradients: Option<GradientsParams>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = match &self.gradients {
            Some(gradients) => gradients.get::<D>(param.id).map_or(Vec::new(), values),
            None => values(param.base()),
        };
        let (path, trained) = (self.path.join("."), param.is_require_grad());
        self.found.push(Parameter { path, trained, values });
    }
}

/// The module with noise from `N(0, 0.1)` added to every trained parameter: away from zeros, ones
/// and whatever else it starts from.
pub(crate) fn perturbed<M: Module>(module: M, seed: u64) -> M {
    let mut normal = Normal::new(seed);
    module.map(&mut Rewrite(|values: &mut [f32], trained, device: Device| {
        if trained {
            values.iter_mut().for_each(|value| *value += 0.1 * normal.next());
        }
        device
    }))
}

/// The same values in a module on another device.
pub(crate) fn moved<M: Module>(module: M, device: &Device) -> M {
    module.map(&mut Rewrite(|_: &mut [f32], _, _| device.clone()))
}

/// Gives each float parameter new values, and the device that the function returns.
struct Rewrite<F>(F);

impl<F: FnMut(&mut [f32], bool, Device) -> Device> ModuleMapper for Rewrite<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = param.is_require_grad();
        let (id, tensor, mapper) = param.consume();
        let (shape, device) = (tensor.dims(), tensor.device());
        let mut values = values(tensor);
        let device = (self.0)(&mut values, trained, device);
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device);
        Param::from_mapped_value(id, tensor.set_require_grad(trained), mapper)
    }
}
