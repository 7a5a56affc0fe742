//! A method's parameters, read and rewritten whatever its type.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::numbers::{Normal, numbers, values};

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
    gradients_of(module, GradientsParams::from_grads(loss.backward(), module))
}

/// The same, of gradients that are there.
pub(crate) fn gradients_of(module: &impl Module, gradients: GradientsParams) -> Vec<Parameter> {
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

/// Every parameter of a module, whole numbers too, in its order: its path, and its values.
pub(crate) fn state(module: &impl Module) -> Vec<(String, Vec<f32>)> {
    struct State(Vec<String>, Vec<(String, Vec<f32>)>);
    impl State {
        fn push(&mut self, values: Vec<f32>) {
            self.1.push((self.0.join("."), values));
        }
    }
    impl ModuleVisitor for State {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.push(values(param.base()));
        }
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.push(numbers(&param.val().into_data()));
        }
        fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
            self.push(numbers(&param.val().into_data()));
        }
    }
    let mut state = State(Vec::new(), Vec::new());
    module.visit(&mut state);
    state.1
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

/// The module with `times` a direction added to the parameter at a path.
pub(crate) fn shifted<M: Module>(module: M, path: &str, direction: &[f32], times: f64) -> M {
    module.map(&mut Rewrite::new(|own: &str, values: &mut [f32], _| {
        if own == path {
            for (value, along) in values.iter_mut().zip(direction) {
                *value += times as f32 * along;
            }
        }
    }))
}

/// The module with noise from `N(0, 0.1)` added to every trained parameter: away from zeros, ones
/// and whatever else it starts from.
pub(crate) fn perturbed<M: Module>(module: M, seed: u64) -> M {
    let mut normal = Normal::new(seed);
    module.map(&mut Rewrite::new(|_: &str, values: &mut [f32], trained| {
        if trained {
            values.iter_mut().for_each(|value| *value += 0.1 * normal.next());
        }
    }))
}

/// Changes the values of each float parameter, given its path and whether it is trained.
struct Rewrite<F> {
    path: Vec<String>,
    new: F,
}

impl<F: FnMut(&str, &mut [f32], bool)> Rewrite<F> {
    fn new(new: F) -> Self {
        Self { path: Vec::new(), new }
    }
}

impl<F: FnMut(&str, &mut [f32], bool)> ModuleMapper for Rewrite<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = param.is_require_grad();
        let (id, tensor, mapper) = param.consume();
        let (shape, device) = (tensor.dims(), tensor.device());
        let mut values = values(tensor);
        (self.new)(&self.path.join("."), &mut values, trained);
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device);
        Param::from_mapped_value(id, tensor.set_require_grad(trained), mapper)
    }
}
