//! A base that is held in fewer bits.

use burn::module::Module;
use peft_format::tensors_under;

use crate::Subject;
use crate::numbers::assert_close;
use crate::parameters::gradients;

/// Over a packed base the method gives the logits and the gradients that it gives over the numbers
/// that the base's weights stand for.
///
/// # Panics
/// If it does not.
pub fn a_packed_base_is_its_numbers(subject: &Subject) {
    let Some(packed) = subject.host.packed() else { return };
    let base = packed.model.base();
    assert!(base.num_bytes() < 4 * base.num_weights(), "nothing is packed");
    let dense = packed.with_tensors(tensors_under(&(), base));
    let method = subject.on(packed.clone()).in_training(1).method;
    let [found, expected] = [&packed, &dense].map(|host| host.logits(&method.valid()));
    assert_close("logits over a packed base", &found, &expected, 1e-4);
    let [found, expected] = [&packed, &dense].map(|host| gradients(&method, &host.loss(&method)));
    for (found, expected) in found.iter().zip(&expected) {
        let what = format!("gradient of {} over a packed base", found.path);
        assert_close(&what, &found.values, &expected.values, 1e-4);
    }
}
