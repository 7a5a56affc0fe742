//! Padding.

use burn::module::Module;
use peft_core::Hooks;
use peft_models::Forward;

use crate::Subject;
use crate::numbers::{assert_close, assert_same, values};
use crate::parameters::gradients;

/// A batch without padding gives the logits and the gradients of one with it. A method that says
/// that it reads padding is given a batch with it, whether or not that is asked for.
///
/// # Panics
/// If it does not.
pub fn packed_equals_padded(subject: &Subject) {
    let (host, method) = (&subject.host, subject.in_training(1).method);
    let logits = |how: Forward<'_>| values(host.outputs(how));
    let hooks = method.valid();
    let [packed, padded] = [Forward::infer(&hooks), Forward::infer(&hooks).padded()].map(logits);
    if method.needs_padding() {
        let what = "logits of a method that reads padding, in a batch with padding";
        return assert_same(what, &packed, &padded);
    }
    assert_close("logits with and without padding", &packed, &padded, 1e-5);
    let learned = |how: Forward<'_>| gradients(&method, &host.loss_of(host.outputs(how)));
    let [packed, padded] = [Forward::infer(&method), Forward::infer(&method).padded()].map(learned);
    for (packed, padded) in packed.iter().zip(&padded) {
        let what = format!("gradient of {} with and without padding", packed.path);
        assert_close(&what, &packed.values, &padded.values, 1e-4);
    }
}
