//! How a method starts.

use burn::module::Module;

use crate::Subject;
use crate::numbers::{assert_close, distance};

/// A fresh method leaves the logits as they are; one that is expected not to, does not.
///
/// # Panics
/// If it is otherwise.
pub fn the_start_is_the_base(subject: &Subject) {
    let base = subject.host.logits(&());
    let adapted = subject.host.logits(&subject.fresh().method.valid());
    if subject.expect.identity_at_init {
        assert_close("logits of the fresh method and the base's", &adapted, &base, 1e-5);
    } else {
        let distance = distance(&adapted, &base);
        assert!(distance > 1e-3, "the fresh method was expected to change the model: {distance:e}");
    }
}
