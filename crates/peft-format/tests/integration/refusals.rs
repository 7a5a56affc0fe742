//! Adapters that cannot be put over one another.

use burn::module::Module;
use peft_core::{
    Base, Edits, Hooks, InitContext, Method, MethodConfig, ModuleNames, Pass, Result, Role, Site,
    Targets,
};
use peft_format::{Adapter, AdapterConfig, Composition};
use peft_lora::{LoraBias, LoraConfig};
use serde::{Deserialize, Serialize};

use crate::support::{Doubled, bert, device};

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
