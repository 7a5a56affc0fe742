//! The properties hold for a sound method, and each is violated by a method with the fault that it
//! is there to find. (Two are left out: a method holds nothing through which it could change the base.)

use burn::module::{Module, Param};
use burn::tensor::{Device, GradientCheckpointingStrategy, Tensor, module::linear};
use peft_conformance::{Expect, Subject, conformance, properties};
use peft_core::{
    Base, Change, Exchange, Hooks, Layout, LinearLayer, Method, MethodConfig, Progress, Result,
    Role, Site,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Fault {
    #[default]
    None,
    ShiftedStart,
    UnusedParameter,
    MovingConstant,
    LinearForgetsTheScale,
    WrongInverse,
    TensorNotInFile,
    TooFewEntries,
    RankTooHigh,
    DependsOnCheckpointing,
    Refusal,
}

/// `W' = W + s u vᵀ` at each query.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct OuterConfig {
    fault: Fault,
}

#[derive(Module, Debug)]
struct Outer {
    layers: Vec<Option<Factors>>,
    constant: Param<Tensor<1>>,
    #[module(skip)]
    fault: Fault,
}

#[derive(Module, Debug)]
struct Factors {
    /// `[d_in, 1]`.
    u: Param<Tensor<2>>,
    /// `[1, d_out]`.
    v: Param<Tensor<2>>,
    unused: Param<Tensor<1>>,
}

const SCALE: f64 = 1.7;

impl MethodConfig for OuterConfig {
    const NAME: &'static str = "outer";
    const PEFT_TYPE: &'static str = "OUTER";
    const ABOUT: &'static str = "an outer product, with a fault";
    const LEARNING_RATE: f64 = 1e-3;
    type Method = Outer;

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn init(&self, base: &Base, device: &Device) -> Result<Outer> {
        let mut layers = vec![None; base.len()];
        for site in base.linears().filter(|site| site.role == Role::Query) {
            let start = if self.fault == Fault::ShiftedStart { 0.1 } else { 0.0 };
            let unused = Param::from_tensor(Tensor::ones([2], device));
            layers[site.index] = Some(Factors {
                u: Param::from_tensor(Tensor::ones([site.d_in(), 1], device)),
                v: Param::from_tensor(Tensor::full([1, site.d_out()], start, device)),
                unused: unused.set_require_grad(self.fault == Fault::UnusedParameter),
            });
        }
        let constant = Param::from_tensor(Tensor::ones([3], device)).set_require_grad(false);
        Ok(Outer { layers, constant, fault: self.fault })
    }
}

impl Outer {
    fn delta(&self, site: &Site) -> Option<Tensor<2>> {
        let factors = self.layers[site.index].as_ref()?;
        Some(factors.u.val() * factors.v.val() * SCALE)
    }
}

impl Hooks for Outer {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        Some(layer.weight() + self.delta(layer.site())?)
    }
    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let factor = if self.fault == Fault::WrongInverse { 0.5 } else { 1.0 };
        Some(layer.weight() - self.delta(layer.site())? * factor)
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        let Some(mut delta) = self.delta(layer.site()) else { return layer.forward(input) };
        let strategy = delta.device().gradient_checkpointing_strategy();
        match self.fault {
            Fault::LinearForgetsTheScale => delta = delta / SCALE,
            Fault::DependsOnCheckpointing
                if strategy == Some(GradientCheckpointingStrategy::Balanced) =>
            {
                delta = delta * 1.01;
            }
            _ => {}
        }
        layer.forward(input.clone()) + linear(input, delta, None)
    }
}

impl Method for Outer {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(factors) = &mut self.layers[site.index] else { continue };
            file.param(site.key("outer_u"), &mut factors.u, Layout::AsIs);
            if self.fault != Fault::TensorNotInFile {
                file.param(site.key("outer_v"), &mut factors.v, Layout::AsIs);
            }
        }
    }
    fn change(&self, site: &Site) -> Change {
        let weight = site.d_in() * site.d_out();
        match (&self.layers[site.index], self.fault) {
            (None, _) => Change::default(),
            (Some(_), Fault::TooFewEntries) => Change { weight: weight - 1, bias: 0, rank: 1 },
            (Some(_), Fault::RankTooHigh) => Change { weight, bias: 0, rank: 2 },
            (Some(_), _) => Change { weight, bias: 0, rank: 1 },
        }
    }
    fn after_step(&mut self, _progress: Progress) {
        if self.fault == Fault::MovingConstant {
            self.constant = self.constant.clone().map(|values| values * 2.0);
        }
    }
    fn merge_obstacle(&self) -> Option<String> {
        // A method that refuses to merge is refused with the reason that it gives.
        (self.fault == Fault::Refusal).then(|| "it says so".into())
    }
}

conformance!(
    sound,
    OuterConfig::default(),
    Expect { trainable: Some(2 * (24 + 24)), ..Expect::default() }
);

#[test]
fn a_refusal_is_no_fault() {
    let subject = Subject::new(OuterConfig { fault: Fault::Refusal }, Expect::default());
    properties::merged_equals_unmerged(&subject);
    properties::unmerging_gives_the_base_back(&subject);
}

/// One test for each fault: the property, and what it says.
macro_rules! catches {
    ($($name:ident: $fault:ident, $property:ident, $message:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $message)]
            fn $name() {
                let config = OuterConfig { fault: Fault::$fault };
                properties::$property(&Subject::new(config, Expect::default()));
            }
        )*
    };
}

catches! {
    shifted_start: ShiftedStart, the_start_is_the_base, "logits of the fresh method";
    unused_parameter: UnusedParameter, every_trained_parameter_gets_a_gradient, "no gradient";
    unused_parameter_stays: UnusedParameter, a_step_changes_only_what_is_trained, "trained: true";
    moving_constant: MovingConstant, a_step_changes_only_what_is_trained, "trained: false";
    scale_in_weight: LinearForgetsTheScale, weight_agrees_with_linear, "output at";
    scale_in_merging: LinearForgetsTheScale, merged_equals_unmerged, "merged and adapted logits";
    wrong_inverse: WrongInverse, unmerging_gives_the_base_back, "apart";
    tensor_not_in_file: TensorNotInFile, a_saved_adapter_loads_as_it_was, "the loaded adapter";
    tensor_not_counted: TensorNotInFile, counts_match_the_tensors, "those in the file";
    too_few_entries: TooFewEntries, changes_what_it_says, "entries changed, said were";
    rank_too_high: RankTooHigh, changes_what_it_says, "rank of the change";
    checkpointing: DependsOnCheckpointing, gradient_checkpointing_changes_nothing, "checkpointing";
}

#[test]
#[should_panic(expected = "expected to change the model")]
fn an_identity_that_should_not_be_one() {
    let expect = Expect { identity_at_init: false, ..Expect::default() };
    properties::the_start_is_the_base(&Subject::new(OuterConfig::default(), expect));
}

#[test]
#[should_panic(expected = "trainable values")]
fn another_number_of_trained_values() {
    let expect = Expect { trainable: Some(95), ..Expect::default() };
    properties::counts_match_the_tensors(&Subject::new(OuterConfig::default(), expect));
}
