//! A boxed method is the module in the box.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use peft_core::{
    Base, BoxedMethod, EmptyPass, Exchange, Hooks, Layout, Method, NormEdit, Pass, Site,
};
use peft_lora::Lora;

use crate::support::{bert, device, init, names, random, random_lora, values};

/// Parameters of several ranks and kinds, at several depths.
#[derive(Module, Debug)]
struct Odd {
    vector: Param<Tensor<1>>,
    cubes: Vec<Option<Param<Tensor<3>>>>,
    inner: Inner,
    constant: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Inner {
    indices: Param<Tensor<1, Int>>,
    matrix: Param<Tensor<2>>,
}

impl Hooks for Odd {
    fn norm(&self, _site: &Site, _pass: &Pass<'_>) -> NormEdit {
        NormEdit::bias(self.vector.val())
    }
}

impl Method for Odd {
    fn exchange(&mut self, file: &mut Exchange<'_>, _base: &Base) {
        file.param("vector", &mut self.vector, Layout::AsIs);
    }
    fn virtual_tokens(&self) -> usize {
        3
    }
}

impl Odd {
    fn new(device: &Device) -> Self {
        let on = |tensor: Tensor<3>| Tensor::<3>::from_data(tensor.into_data(), device);
        let matrix = |shape: [usize; 2]| {
            let data = random::<2>(shape).into_data();
            Param::from_tensor(Tensor::<2>::from_data(data, device))
        };
        let indices = Tensor::from_data([3i32, 1, 2], device);
        Self {
            vector: Param::from_tensor(Tensor::from_data(random::<1>([4]).into_data(), device)),
            cubes: vec![None, Some(Param::from_tensor(on(random([2, 3, 5]))))],
            inner: Inner {
                indices: Param::initialized(ParamId::new(), indices),
                matrix: matrix([3, 4]),
            },
            constant: matrix([2, 7]).set_require_grad(false),
        }
    }
}

/// What a visitor sees: (path, id, kind, requires gradient, values).
type Seen = Vec<(String, ParamId, &'static str, bool, Vec<f32>)>;

fn seen(module: &impl Module) -> Seen {
    #[derive(Default)]
    struct See(Vec<String>, Seen);
    impl ModuleVisitor for See {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.push(format!("{name}({container})"));
        }
        fn exit_module(&mut self, name: &str, container: &str) {
            assert_eq!(self.0.pop(), Some(format!("{name}({container})")));
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let found = values(param.val());
            self.1.push((self.0.join("."), param.id, "float", param.is_require_grad(), found));
        }
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.1.push((self.0.join("."), param.id, "int", false, values(param.val().float())));
        }
    }
    let mut see = See::default();
    module.visit(&mut see);
    see.1
}

/// Doubles what is trained, and halves what is not.
struct Rescale;

impl ModuleMapper for Rescale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let factor = if param.is_require_grad() { 2.0 } else { 0.5 };
        let (id, tensor, mapper) = param.consume();
        let tensor = (tensor * factor).detach();
        Param::from_mapped_value(id, tensor.set_require_grad(factor == 2.0), mapper)
    }
    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        param.map(|tensor| tensor + 10)
    }
}

#[test]
fn visits_like_the_module() {
    let odd = Odd::new(&device().autodiff());
    let boxed = BoxedMethod::new(odd.clone());
    let expected = seen(&odd);
    assert_eq!(expected.len(), 5);
    assert_eq!(seen(&boxed), expected);
    assert_eq!(boxed.num_params(), odd.num_params());
    assert_eq!(seen(&boxed.clone()), expected);
    assert_eq!(boxed.devices(), odd.devices());
}

#[test]
fn maps_like_the_module() {
    let odd = Odd::new(&device().autodiff());
    let before = seen(&odd);
    let boxed = BoxedMethod::new(odd.clone()).map(&mut Rescale);
    let expected = seen(&odd.map(&mut Rescale));
    assert_eq!(seen(&boxed), expected);
    for ((_, old_id, kind, trained, old), (_, id, _, _, new)) in before.iter().zip(&expected) {
        let mapped = |x: &f32| match (*kind, trained) {
            ("int", _) => x + 10.0,
            (_, true) => 2.0 * x,
            (_, false) => 0.5 * x,
        };
        assert_eq!((id, new), (old_id, &old.iter().map(mapped).collect()));
    }
}

#[test]
fn a_record_of_one_loads_into_the_other() {
    let device = device().autodiff();
    let (odd, other) = (Odd::new(&device), Odd::new(&device));
    let numbers = |module: &Seen| -> Vec<Vec<f32>> { module.iter().map(|p| p.4.clone()).collect() };
    let expected = numbers(&seen(&odd));
    assert_ne!(numbers(&seen(&other)), expected);
    let boxed = BoxedMethod::new(other.clone()).load_record(odd.clone().into_record());
    assert_eq!(numbers(&seen(&boxed)), expected);
    let unboxed = other.load_record(BoxedMethod::new(odd).into_record());
    assert_eq!(numbers(&seen(&unboxed)), expected);
}

#[test]
fn training_and_validation_cross_the_box() {
    let boxed = BoxedMethod::new(Odd::new(&device().autodiff()));
    let trained =
        |module: &BoxedMethod| -> Vec<bool> { seen(module).iter().map(|p| p.3).collect() };
    let expected = [true, true, false, true, false];
    assert_eq!(trained(&boxed), expected);
    let valid = boxed.valid();
    let gradients = |method: &BoxedMethod| {
        let odd = method.downcast_ref::<Odd>().expect("it is one");
        (odd.vector.val().device().is_autodiff(), odd.vector.val().is_require_grad())
    };
    assert_eq!((gradients(&boxed), gradients(&valid)), ((true, true), (false, false)));
    let again = Module::train(valid);
    assert_eq!((gradients(&again), trained(&again)), ((true, true), expected.to_vec()));
}

#[test]
fn what_a_method_says_crosses_the_box() {
    let base = bert();
    let mut boxed = BoxedMethod::new(Odd::new(&device()));
    let site = base.sites().next().expect("a site");
    let norms = |hooks: &dyn Hooks| {
        let parts = EmptyPass::new(&device());
        hooks.norm(site, &parts.pass()).bias.apply(Tensor::zeros([4], &device()))
    };
    let odd = boxed.downcast_ref::<Odd>().expect("it is one");
    assert_eq!(norms(&boxed).into_data(), odd.vector.val().into_data());
    assert_eq!(boxed.virtual_tokens(), 3);
    let mut file = Exchange::describe();
    boxed.exchange(&mut file, &base);
    assert_eq!(file.into_specs()[0].shape, [4]);
    assert!(boxed.downcast_ref::<Lora>().is_none());

    let config = random_lora(2, 3.0, names(&["query"]));
    let lora = init(&config, &base);
    assert!(lora.downcast_ref::<Lora>().is_some());
    assert!(lora.lr_factors().is_empty());
    let faster = peft_lora::LoraConfig { lr_ratio: Some(16.0), ..config };
    let lora = init(&faster, &base);
    assert!(lora.lr_factors().contains(&("lora_b".to_string(), 16.0)));
}
