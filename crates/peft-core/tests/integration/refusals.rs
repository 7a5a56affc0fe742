//! What cannot be put over what.

use std::sync::Arc;

use burn::module::{Module, ParamId};
use peft_core::{
    Adapter, AdapterConfig, Base, Composition, Edit, Edits, Hooks, InitContext, LowRank, Magnitude,
    MemoKey, Method, MethodConfig, ModuleNames, Pass, Replaced, Result, Role, Routed, Scale, Site,
    Targets, merge_obstacle,
};
use peft_lora::{LoraBias, LoraConfig};
use serde::{Deserialize, Serialize};

use crate::support::{Doubled, Fixed, bert, device, gate, linears, random};

const IN: usize = 6;
const OUT: usize = 10;

fn low_rank() -> Edits {
    LowRank::new(random([IN, 2]), random([2, OUT]), 1.0).into()
}

fn scale() -> Edits {
    Scale::output(random([OUT])).into()
}

fn bias() -> Edits {
    Edit::Bias(random([OUT])).into()
}

fn magnitude() -> Edits {
    let key = MemoKey { of: ParamId::new(), name: "norms", site: None };
    Magnitude { values: random([OUT]), key }.into()
}

fn replaced() -> Edits {
    Edit::Weight(Arc::new(Replaced(random([IN, OUT])))).into()
}

fn gated(edits: Edits) -> Edits {
    Edit::Gated(gate(IN), edits).into()
}

fn mean(edits: Edits) -> Edits {
    Edit::Mean(vec![(0.5, edits), (0.5, Edits::none())]).into()
}

fn routed(edits: Edits) -> Edits {
    let key = MemoKey { of: ParamId::new(), name: "slots", site: None };
    Edit::Routed(Routed::new(vec![edits, Edits::none()], key)).into()
}

const ANOTHER_WEIGHT: &str =
    "it puts another weight in the place of the one that the other changes";
const NO_WEIGHT: &str = "it changes a weight, and under the other there is none";
const ANOTHER_BIAS: &str = "it puts another bias in the place of the one that the other trains";
const NO_BIAS: &str = "it changes a bias, and under the other there is none";

#[test]
fn what_needs_more_than_is_left_is_refused() {
    let cases: [(&str, Edits, Edits, Option<&str>); 24] = [
        ("sums", low_rank(), low_rank(), None),
        ("a scale over anything", Doubled::edit(), scale(), None),
        ("a sum over a function", Doubled::edit(), low_rank(), None),
        ("a function over anything", magnitude(), Doubled::edit(), None),
        ("a weight over a change", low_rank(), replaced(), Some(ANOTHER_WEIGHT)),
        ("a weight over the base", Edits::none(), replaced(), None),
        ("a change over a weight", replaced(), low_rank(), None),
        ("a weight over a bias", bias(), replaced(), Some(ANOTHER_WEIGHT)),
        ("norms of a weight", low_rank(), magnitude(), None),
        ("norms of nothing", Doubled::edit(), magnitude(), Some(NO_WEIGHT)),
        ("norms under gates", gated(low_rank()), magnitude(), Some(NO_WEIGHT)),
        ("norms by slot", routed(low_rank()), magnitude(), Some(NO_WEIGHT)),
        ("a bias over a sum", low_rank(), bias(), None),
        ("a bias over a scale", scale(), bias(), None),
        ("two biases", bias(), bias(), Some(ANOTHER_BIAS)),
        ("a bias over the mean of one", mean(bias()), bias(), Some(ANOTHER_BIAS)),
        ("a bias over a function", Doubled::edit(), bias(), Some(NO_BIAS)),
        ("a bias over a gated sum", gated(low_rank()), bias(), None),
        ("a bias over a gated scale", gated(scale()), bias(), Some(NO_BIAS)),
        ("a bias over sums by slot", routed(low_rank()), bias(), None),
        ("a bias over scales by slot", routed(scale()), bias(), Some(NO_BIAS)),
        ("a gated bias over a function", Doubled::edit(), gated(bias()), Some(NO_BIAS)),
        ("a bias of a slot over a bias", bias(), routed(bias()), Some(ANOTHER_BIAS)),
        ("a mean with a weight over a change", low_rank(), mean(replaced()), Some(ANOTHER_WEIGHT)),
    ];
    for (what, below, above, reason) in cases {
        assert_eq!(below.refuses(&above), reason, "{what}");
    }
}

#[test]
fn the_edits_of_one_method_are_over_each_other_too() {
    assert_eq!(Edits::none().refuses(&bias().followed_by(bias())), Some(ANOTHER_BIAS));
    assert_eq!(low_rank().refuses(&Doubled::edit().followed_by(bias())), Some(NO_BIAS));
    assert_eq!(Edits::none().refuses(&low_rank().followed_by(replaced())), Some(ANOTHER_WEIGHT));
}

/// A function of the output of each query, which has no weight.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct DoubledConfig {}

#[derive(Module, Debug)]
struct DoubledQueries {}

impl MethodConfig for DoubledConfig {
    const NAME: &'static str = "doubled";
    const PEFT_TYPE: &'static str = "DOUBLED";
    const ABOUT: &'static str = "a function of an output";
    const LEARNING_RATE: f64 = 1e-3;
    type Method = DoubledQueries;

    fn validate(&self) -> Result<()> {
        Ok(())
    }
    fn init(&self, _context: &InitContext<'_>) -> Result<DoubledQueries> {
        Ok(DoubledQueries {})
    }
}

impl Hooks for DoubledQueries {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        if site.role == Role::Query { Doubled::edit() } else { Edits::none() }
    }
}

impl Method for DoubledQueries {}

fn adapter(config: impl MethodConfig, base: &Base) -> Adapter {
    Adapter::new(AdapterConfig::new(Box::new(config)), base, &device()).expect("it fits")
}

fn lora(bias: LoraBias) -> LoraConfig {
    let target_modules = Some(ModuleNames::list(["query"]));
    let targets = Targets { target_modules, ..Targets::default() };
    LoraConfig { rank: 2, bias, targets, ..LoraConfig::default() }
}

#[test]
fn a_stack_that_would_drop_a_bias_is_an_error_that_names_both() {
    let base = bert();
    let (doubled, plain) = (adapter(DoubledConfig {}, &base), adapter(lora(LoraBias::None), &base));
    let biases = adapter(lora(LoraBias::LoraOnly), &base);
    let stack = |adapters: [&Adapter; 2]| {
        let adapters = adapters.map(Clone::clone).to_vec();
        Composition::Stack.of(adapters, None, &base).map(|_| ())
    };
    let path = "bert.encoder.layer.0.attention.self.query";
    assert_eq!(
        stack([&doubled, &biases]).expect_err("there is no bias").to_string(),
        format!(
            "stack of doubled, lora: lora cannot act over doubled at {path}: it changes a bias, \
             and under the other there is none"
        )
    );
    assert_eq!(
        stack([&biases, &biases]).expect_err("one bias").to_string(),
        format!(
            "stack of lora, lora: lora cannot act over lora at {path}: it puts another bias in \
             the place of the one that the other trains"
        )
    );
    for pair in [[&doubled, &plain], [&biases, &doubled], [&plain, &biases], [&biases, &plain]] {
        stack(pair).expect("nothing is lost");
    }
    let over = biases.over(vec![doubled], &base).expect_err("there is no bias").to_string();
    assert!(over.contains("lora cannot act over doubled"), "{over}");
}

#[test]
fn an_adapter_over_what_is_saved_beside_it_is_refused_where_it_would_be_dropped() {
    let base = bert();
    let mut config = AdapterConfig::new(Box::new(DoubledConfig {}));
    config.modules_to_save = vec!["query".into()];
    // A function of an output leaves what is below it.
    Adapter::new(config, &base, &device()).expect("it fits");
}

#[test]
fn a_bias_that_the_model_has_no_place_for_is_not_merged() {
    let mut base = linears(&["biased"]);
    base.linear("unbiased", Role::Other, None, random([IN, OUT]), None);
    let sites: Vec<_> = base.sites().cloned().collect();
    let [biased, unbiased] = &sites[..] else { panic!("two layers") };
    assert_eq!(merge_obstacle(&Fixed::linear(biased, bias()), &base), None);
    assert_eq!(merge_obstacle(&Fixed::linear(unbiased, scale()), &base), None);
    assert_eq!(
        merge_obstacle(&Fixed::linear(unbiased, bias()), &base).as_deref(),
        Some("it gives unbiased a bias, and the model has none there")
    );
    assert_eq!(
        merge_obstacle(&Fixed::linear(biased, Doubled::edit()), &base).as_deref(),
        Some("it doubles the output")
    );
}
