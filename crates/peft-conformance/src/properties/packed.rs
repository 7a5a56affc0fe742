//! A base that is held in fewer bits.

use burn::module::Module;
use peft_core::tensors_under;

use crate::Subject;
use crate::numbers::assert_close;

/// Over a packed base the method gives the logits that it gives over the numbers that the base's
/// weights stand for, and learns the same from a batch.
///
/// # Panics
/// If it does not.
pub fn a_packed_base_is_its_numbers(subject: &Subject) {
    let Some(packed) = subject.host.packed() else { return };
    let base = packed.model.base();
    assert!(base.num_bytes() < 4 * base.num_weights(), "nothing is packed");
    let dense = packed.with_tensors(tensors_under(&(), base));
    let [packed, dense] = [packed, dense].map(|host| subject.on(host));
    let adapter = packed.in_training(1);
    let agree = |what: &str, a: &peft_core::Adapter, b: &peft_core::Adapter| {
        let logits = packed.host.logits(&a.method.valid());
        assert_close(what, &logits, &dense.host.logits(&b.method.valid()), 1e-4);
    };
    agree("logits", &adapter, &adapter);
    let learned = packed.train(adapter.clone(), 1);
    agree("logits after a step", &learned, &dense.train(adapter, 1));
}
