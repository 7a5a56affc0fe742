//! Texts that are gone on with.

use burn::module::Module;
use peft_core::{Hooks, Memo, Slots};
use peft_models::{Cache, Forward};

use crate::numbers::{assert_close, values};
use crate::{Host, Subject};

/// With a cache, the beginning of each text and then token by token gives what all at once gives.
/// Left out are a method that reads padding, whose reading of a text depends on what follows, one
/// that is [known](crate::Expect::goes_on) to put something behind a text, and hosts that cannot go
/// on.
///
/// # Panics
/// If it does not.
pub fn token_by_token_equals_all_at_once(subject: &Subject) {
    if !goes_on(subject) {
        return;
    }
    let method = subject.trained(1).method.valid();
    let slots = Slots::default();
    let found = token_by_token(&subject.host, &method, &slots);
    let expected = subject.host.logits(&method);
    assert_close("logits token by token, and all at once", &found, &expected, 1e-5);
}

/// Whether texts can be gone on with.
pub(super) fn goes_on(subject: &Subject) -> bool {
    let can = subject.host.kind.has_cache() && subject.expect.goes_on;
    can && !subject.fresh().method.needs_padding()
}

/// The logits of the host's batch, flat, read with a cache.
pub(super) fn token_by_token(host: &Host, hooks: &dyn Hooks, slots: &Slots) -> Vec<f32> {
    let (cache, memo) = (Cache::new(), Memo::new());
    let mut logits = vec![Vec::new(); host.batch.targets.len()];
    let mut slots = slots.clone();
    for step in host.batch.token_by_token(host.model.base().device()) {
        if !cache.is_empty() {
            cache.select(&step.kept);
        }
        slots = slots.select(step.kept);
        let how = Forward::infer(hooks).with_cache(&cache).with_memo(&memo).with_slots(&slots);
        let outputs = host.model.forward_at(&step.input, &step.places, how);
        let outputs = outputs.unwrap_or_else(|e| panic!("a step does not fit the model: {e}"));
        let [_, words] = outputs.dims();
        for (target, row) in step.targets.iter().zip(values(outputs).chunks(words)) {
            logits[*target] = row.to_vec();
        }
    }
    logits.concat()
}
