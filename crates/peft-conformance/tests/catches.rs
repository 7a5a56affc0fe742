//! The properties hold for a sound method, and each is violated by a method with the fault that it
//! is there to find. (Two are left out: a method holds nothing through which it could change the
//! base.)

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor, module::linear};
use peft_conformance::{Expect, HostKind, Subject, conformance, properties};
use peft_core::{
    Base, Change, Edit, Edits, Exchange, Hooks, InitContext, Layout, LossContext, LowRank, Method,
    MethodConfig, OutputMap, Pass, Result, Role, Site, StepContext, WeightMap,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Fault {
    #[default]
    None,
    ShiftedStart,
    DrawsFromTheDevice,
    UnusedParameter,
    MovingConstant,
    AnotherScaleWithoutTokens,
    WrongInverse,
    TensorNotInFile,
    TooFewEntries,
    RankTooHigh,
    DependsOnTheTape,
    Refusal,
    TwiceTheGradient,
    CountsStepsOutsideParams,
    CalibrationOutsideParams,
    DropoutThatAsksNothing,
    DropoutWhereGradientsAre,
    NoDropoutInTheFirstLayer,
    DropoutInInference,
    ReadsPaddingInSilence,
    ReadsTheNumberOfRows,
}

/// `W' = W + s u vᵀ` at each query.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct OuterConfig {
    fault: Fault,
    dropout: f64,
    /// Whether two passes over a batch are to agree (R-Drop).
    agrees: bool,
}

#[derive(Module, Debug)]
struct Outer {
    layers: Vec<Option<Factors>>,
    constant: Param<Tensor<1>>,
    #[module(skip)]
    fault: Fault,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    agrees: bool,
    /// Where no state should be.
    #[module(skip)]
    factor: f64,
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

    fn init(&self, context: &InitContext<'_>) -> Result<Outer> {
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let is_query = |site: &Site| matches!(site.role, Role::Query | Role::QueryKeyValue);
        for site in base.linears().filter(|site| is_query(site)) {
            let start = if self.fault == Fault::ShiftedStart { 0.1 } else { 0.0 };
            let unused = Param::from_tensor(Tensor::ones([2], device));
            layers[site.index] = Some(Factors {
                u: Param::from_tensor(match self.fault {
                    Fault::DrawsFromTheDevice => {
                        Tensor::random([site.d_in(), 1], Distribution::Default, device)
                    }
                    _ => Tensor::ones([site.d_in(), 1], device),
                }),
                v: Param::from_tensor(Tensor::full([1, site.d_out()], start, device)),
                unused: unused.set_require_grad(self.fault == Fault::UnusedParameter),
            });
        }
        let constant = Param::from_tensor(Tensor::ones([3], device)).set_require_grad(false);
        let kept = self.fault == Fault::CalibrationOutsideParams && context.calibration.is_some();
        let factor = if kept { 2.0 } else { 1.0 };
        let OuterConfig { fault, dropout, agrees } = *self;
        Ok(Outer { layers, constant, fault, dropout, agrees, factor })
    }
}

impl Hooks for Outer {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(Some(Factors { u, v, .. })) = self.layers.get(site.index) else {
            return Edits::none();
        };
        let (u, v) = (u.val(), v.val());
        let scale = SCALE * self.factor;
        let scale = match self.fault {
            Fault::AnotherScaleWithoutTokens if pass.rows.is_empty() => 0.5 * scale,
            Fault::DependsOnTheTape if v.device().is_autodiff() => 1.01 * scale,
            Fault::ReadsTheNumberOfRows => scale * pass.rows.len() as f64,
            _ => scale,
        };
        let dropout = match (self.fault, site.layer) {
            (Fault::NoDropoutInTheFirstLayer, Some(0)) => 0.0,
            _ => self.dropout,
        };
        let (fault, factors) = (self.fault, [u.clone(), v.clone()]);
        match fault {
            Fault::WrongInverse | Fault::TooFewEntries | Fault::RankTooHigh => {
                let delta = u * v * scale;
                Edits::from(Edit::Weight(Arc::new(Added { delta, fault })))
            }
            Fault::DropoutThatAsksNothing
            | Fault::DropoutWhereGradientsAre
            | Fault::DropoutInInference
            | Fault::ReadsPaddingInSilence
            | Fault::TwiceTheGradient => {
                Edits::from(Edit::Output(Arc::new(Function { factors, dropout, fault })))
            }
            _ => LowRank::new(u, v, scale).with_dropout(dropout).into(),
        }
    }
}

/// `W + Δ`.
#[derive(Debug)]
struct Added {
    delta: Tensor<2>,
    fault: Fault,
}

impl WeightMap for Added {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() + self.delta.clone()
    }
    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        let factor = if self.fault == Fault::WrongInverse { 0.5 } else { 1.0 };
        Some(weight - self.delta.clone() * factor)
    }
    fn change(&self, site: &Site) -> Change {
        let weight = site.d_in() * site.d_out();
        match self.fault {
            Fault::TooFewEntries => Change { weight: weight - 1, bias: 0, rank: 1 },
            Fault::RankTooHigh => Change { weight, bias: 0, rank: 2 },
            _ => Change { weight, bias: 0, rank: 1 },
        }
    }
}

/// `y + s (x u) v`, with faults that a closed form cannot have.
#[derive(Debug)]
struct Function {
    factors: [Tensor<2>; 2],
    dropout: f64,
    fault: Fault,
}

impl Function {
    fn dropped(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let random = |x: Tensor<2>| match self.dropout {
            0.0 => x,
            p => {
                let kept = x.random_like(Distribution::Bernoulli(1.0 - p)) / (1.0 - p);
                x * kept
            }
        };
        match self.fault {
            Fault::DropoutThatAsksNothing if pass.mode.is_training() => random(x),
            // As a module does that takes a device with gradients for training.
            Fault::DropoutWhereGradientsAre if x.device().is_autodiff() => random(x),
            Fault::DropoutThatAsksNothing | Fault::DropoutWhereGradientsAre => x,
            Fault::DropoutInInference if !pass.mode.is_training() => random(x),
            _ => pass.dropout(x, self.dropout),
        }
    }
}

impl OutputMap for Function {
    fn forward(&self, x: &Tensor<2>, y: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let [mut u, v] = self.factors.clone();
        let mut x = self.dropped(x.clone(), pass);
        match self.fault {
            Fault::ReadsPaddingInSilence => x = pass.rows.spread(pass.rows.mean(x)),
            Fault::TwiceTheGradient => u = u.clone() * 2.0 - u.detach(),
            _ => {}
        }
        y + linear(linear(x, u, None), v, None) * SCALE
    }
    fn obstacle(&self) -> &'static str {
        "it has a fault"
    }
}

impl Method for Outer {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(Some(factors)) = self.layers.get_mut(site.index) else { continue };
            file.param(site.key("outer_u"), &mut factors.u, Layout::AsIs);
            if self.fault != Fault::TensorNotInFile {
                file.param(site.key("outer_v"), &mut factors.v, Layout::AsIs);
            }
        }
    }
    fn after_step(&mut self, _context: &StepContext<'_>) {
        match self.fault {
            Fault::MovingConstant => {
                self.constant = self.constant.clone().map(|values| values * 2.0);
            }
            Fault::CountsStepsOutsideParams => self.factor *= 1.5,
            _ => {}
        }
    }
    fn loss(&self, context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        let apart = || Ok(((context.again)()? - (context.logits)()).square().mean());
        self.agrees.then(apart).transpose()
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

fn faulty(fault: Fault) -> Subject {
    Subject::new(OuterConfig { fault, ..OuterConfig::default() }, Expect::default())
}

#[test]
fn a_second_pass_over_a_batch_is_computed_again_too() {
    let config = OuterConfig { agrees: true, ..OuterConfig::default() };
    let subject = Subject::new(config, Expect::default());
    properties::gradient_checkpointing_changes_nothing(&subject);
}

#[test]
fn a_refusal_is_no_fault() {
    properties::merged_equals_unmerged(&faulty(Fault::Refusal));
    properties::unmerging_gives_the_base_back(&faulty(Fault::Refusal));
}

/// One test for each fault: the property, and what it says.
macro_rules! catches {
    ($($name:ident: $fault:ident, $property:ident, $message:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $message)]
            fn $name() {
                properties::$property(&faulty(Fault::$fault));
            }
        )*
    };
}

catches! {
    shifted_start: ShiftedStart, the_start_is_the_base, "logits of the fresh method";
    random_of_the_device: DrawsFromTheDevice, the_start_is_the_base, "another of the same seed";
    unused_parameter: UnusedParameter, every_trained_parameter_gets_a_gradient, "no gradient";
    unused_parameter_stays: UnusedParameter, a_step_changes_only_what_is_trained, "trained: true";
    moving_constant: MovingConstant, a_step_changes_only_what_is_trained, "trained: false";
    scale_in_weight: AnotherScaleWithoutTokens, weight_agrees_with_linear, "output at";
    scale_in_merging: AnotherScaleWithoutTokens, merged_equals_unmerged,
        "merged and adapted logits";
    wrong_inverse: WrongInverse, unmerging_gives_the_base_back, "apart";
    tensor_not_in_file: TensorNotInFile, a_saved_adapter_loads_as_it_was, "the loaded adapter";
    tensor_not_counted: TensorNotInFile, counts_match_the_tensors, "those in the file";
    too_few_entries: TooFewEntries, changes_what_it_says, "entries changed, said were";
    rank_too_high: RankTooHigh, changes_what_it_says, "rank of the change";
    checkpointing: DependsOnTheTape, gradient_checkpointing_changes_nothing,
        "loss with checkpointing";
    wrong_gradient: TwiceTheGradient, an_edits_gradient_matches_finite_differences,
        "along directions";
    steps_outside_params: CountsStepsOutsideParams, resumes_to_the_same_bits, "went on";
    calibration_outside_params: CalibrationOutsideParams, resumes_to_the_same_bits, "went on";
    dropout_of_its_own: DropoutThatAsksNothing, dropout_acts_at_every_site_and_never_in_inference,
        "drawn twice";
    dropout_by_device: DropoutWhereGradientsAre, dropout_acts_at_every_site_and_never_in_inference,
        "dropout does not act at bert.encoder.layer.0.attention.self.query";
    dropout_forgotten: NoDropoutInTheFirstLayer, dropout_acts_at_every_site_and_never_in_inference,
        "dropout does not act at bert.encoder.layer.0.attention.self.query";
    dropout_in_inference: DropoutInInference, dropout_acts_at_every_site_and_never_in_inference,
        "dropout acts in inference";
    padding: ReadsPaddingInSilence, packed_equals_padded, "with and without padding";
    rows: ReadsTheNumberOfRows, mixed_slots_equal_each_alone, "in slot";
}

#[test]
#[should_panic(expected = "token by token")]
fn a_text_read_as_a_whole() {
    let subject = faulty(Fault::ReadsPaddingInSilence).at(HostKind::Llama).expect("it fits");
    properties::token_by_token_equals_all_at_once(&subject);
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

#[test]
#[should_panic(expected = "fits T5, and was expected not to")]
fn a_host_that_it_fits_is_not_left_out() {
    let expect = Expect { unfit: &[HostKind::T5], ..Expect::default() };
    Subject::new(OuterConfig::default(), expect).at(HostKind::T5);
}
