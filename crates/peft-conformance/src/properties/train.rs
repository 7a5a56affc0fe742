//! What training changes, and what it does not.

use burn::module::Module;
use burn::optim::GradientsParams;
use peft_core::{Memo, Progress, TensorMap};
use peft_format::tensors_under;
use peft_models::Recompute;

use crate::Subject;
use crate::numbers::{assert_close, assert_same, bits, values};
use crate::parameters::{gradients, gradients_of, parameters};

/// Draws of parameters; in one, all units of a small bottleneck may be off.
const DRAWS: u64 = 4;

/// Every trained parameter gets a finite gradient that is not zero everywhere.
///
/// # Panics
/// If one does not.
pub fn every_trained_parameter_gets_a_gradient(subject: &Subject) {
    let silent = |seed: u64| -> Vec<String> {
        let method = subject.in_training(seed).method;
        let gradients = gradients(&method, &subject.host.loss(&method));
        assert!(!gradients.is_empty(), "nothing is trained");
        for gradient in &gradients {
            let path = &gradient.path;
            assert!(!gradient.values.is_empty(), "{path} gets no gradient");
            assert!(gradient.values.iter().all(|g| g.is_finite()), "{path} has no finite gradient");
        }
        let silent = gradients.into_iter().filter(|g| g.values.iter().all(|g| *g == 0.0));
        silent.map(|gradient| gradient.path).collect()
    };
    let mut left = silent(1);
    for seed in 2..=DRAWS {
        if left.is_empty() {
            return;
        }
        let again = silent(seed);
        left.retain(|path| again.contains(path));
    }
    assert!(left.is_empty(), "the gradient of {} is zero", left.join(", "));
}

/// An optimizer step changes every trained parameter, and no other.
///
/// # Panics
/// If a trained parameter stays, or another changes.
pub fn a_step_changes_only_what_is_trained(subject: &Subject) {
    let adapter = subject.in_training(1);
    let before = parameters(&adapter.method);
    let after = parameters(&subject.train(adapter, 1).method);
    assert_eq!(before.len(), after.len(), "a step added or removed parameters");
    for (before, after) in before.iter().zip(&after) {
        let changed = before.values != after.values;
        if before.path.split('.').any(|field| subject.expect.running.contains(&field)) {
            assert!(!before.trained, "{} is trained", before.path);
            continue;
        }
        assert_eq!(changed, before.trained, "{} (trained: {})", before.path, before.trained);
    }
}

/// The base's tensors are bit-identical after training.
///
/// # Panics
/// If one is not.
pub fn training_leaves_the_base_alone(subject: &Subject) {
    let base = subject.host.model.base();
    let bytes = |tensors: TensorMap| -> Vec<(String, Vec<u8>)> {
        tensors.into_iter().map(|(key, data)| (key, data.as_bytes().to_vec())).collect()
    };
    let before = bytes(tensors_under(&(), base));
    subject.train(subject.fresh(), 3);
    for ((key, before), (_, after)) in before.iter().zip(bytes(tensors_under(&(), base))) {
        assert!(*before == after, "training changed {key} of the base");
    }
}

/// Without the method, the logits are those from before training, bit for bit, although training
/// changed the adapted ones.
///
/// # Panics
/// If they are not.
pub fn off_is_the_base(subject: &Subject) {
    let before = subject.host.logits(&());
    let adapter = subject.train(subject.fresh(), 3);
    let on = subject.host.logits(&adapter.method.valid());
    assert!(bits(&on) != bits(&before), "three steps of training changed nothing");
    assert_same("logits of the base before and after", &subject.host.logits(&()), &before);
}

/// Gradient checkpointing gives the same loss and the same gradients, under dropout of the model and of
/// the method.
///
/// # Panics
/// If it does not.
pub fn gradient_checkpointing_changes_nothing(subject: &Subject) {
    let subject = subject.with_dropout().unwrap_or_else(|| subject.clone());
    let subject = subject.on(subject.host.with_dropout());
    let method = subject.in_training(1).method;
    let (loss, plain) = {
        let memo = Memo::new();
        let loss = subject.objective(&method, subject.in_step(&method, 0).with_memo(&memo), START);
        let gradients = GradientsParams::from_grads(loss.backward(), &method);
        (values(loss), gradients_of(&method, gradients))
    };
    let (memo, inner) = (Memo::new(), method.valid());
    let recompute = Recompute::new(&subject.host.model, &inner);
    let how = subject.in_step(&method, 0).with_memo(&memo).with_recompute(&recompute);
    let saving = subject.objective(&method, how, START);
    // Burn's own layer norm is rounded otherwise where nothing is recorded.
    assert_close("loss with checkpointing", &values(saving.clone()), &loss, 1e-6);
    let saving = gradients_of(&method, recompute.backward(&method, saving));
    for (saving, plain) in saving.iter().zip(&plain) {
        let what = format!("gradient of {} with checkpointing", plain.path);
        // A parameter that several layers share has the same sum in another order.
        assert_close(&what, &saving.values, &plain.values, 1e-5);
    }
}

/// Before the first of two steps.
const START: Progress = Progress { step: 0, total: 2 };
