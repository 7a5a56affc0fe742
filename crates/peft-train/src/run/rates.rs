//! Learning rates by parameter.

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::ParamGroup;
use peft_core::Method;

/// Parameters that learn faster or slower than the others, as a method wants it.
#[derive(Debug, Default)]
pub struct LearningRates(Vec<(ParamGroup, f64)>);

impl LearningRates {
    /// Those of a method: its [`lr_factors`](Method::lr_factors).
    ///
    /// # Panics
    /// If a name is not a regular expression.
    pub fn of(method: &impl Method) -> Self {
        let group = |(suffix, factor): (String, f64)| {
            let group = ParamGroup::from_regex(format!(r"(^|\.)({suffix})$"))
                .expect("a parameter's name is a regular expression");
            (group, factor)
        };
        Self(method.lr_factors().into_iter().map(group).collect())
    }

    /// The rate of each parameter where `lr` is the others'.
    pub fn at(&self, lr: f64) -> ModuleLearningRate {
        let rates = self.0.iter().fold(ModuleLrScheduler::new(lr), |rates, (group, factor)| {
            rates.with_group(group.clone(), lr * factor)
        });
        let mut rates = rates;
        rates.step()
    }
}
