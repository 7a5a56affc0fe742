//! How a method starts.

use burn::module::Module;

use crate::Subject;
use crate::numbers::{assert_close, distance};

/// A fresh method leaves the logits as they are; one that is expected not to, does not. Two with one
/// seed are the same, since what is random is drawn from their context.
///
/// # Panics
/// If it is otherwise.
pub fn the_start_is_the_base(subject: &Subject) {
    let base = subject.host.logits(&());
    let adapted = subject.host.logits(&subject.fresh().method.valid());
    let frozen = subject.host.model.base();
    let [first, second] = [(); 2].map(|()| subject.fresh().tensors(frozen));
    for (key, values) in &first {
        assert!(second[key] == *values, "{key} is another of the same seed: use context.random");
    }
    if subject.expect.identity_at_init {
        assert_close("logits of the fresh method and the base's", &adapted, &base, 1e-5);
    } else {
        let distance = distance(&adapted, &base);
        assert!(distance > 1e-3, "the fresh method was expected to change the model: {distance:e}");
    }
}
