//! The adapter directory.

use burn::module::Module;
use peft_format::{Adapter, AdapterConfig};

use crate::Subject;
use crate::numbers::{assert_close, distance};

/// An adapter that is saved in training loads with the same configuration and the logits of the
/// finished one, and a check of its directory finds no problem.
///
/// # Panics
/// If it does not.
pub fn a_saved_adapter_loads_as_it_was(subject: &Subject) {
    let (host, adapter) = (&subject.host, subject.trained(1));
    let base = host.model.base();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let saved = subject.in_training(1).save(directory.path(), base);
    saved.unwrap_or_else(|e| panic!("saving failed: {e}"));

    let check = Adapter::check(directory.path(), &subject.registry, base, &subject.device())
        .unwrap_or_else(|e| panic!("checking failed: {e}"));
    assert!(check.ok, "{:?} {:?}", check.problems, check.unmatched);

    let loaded = Adapter::load(directory.path(), &subject.registry, base, &subject.device())
        .unwrap_or_else(|e| panic!("loading failed: {e}"));
    // What the reference would fill in otherwise is written out; the rest is as it was.
    let method = adapter.config.method.for_file(&adapter.targetable(base));
    let method = method.unwrap_or_else(|e| panic!("it cannot be written: {e}"));
    let written = AdapterConfig { method, ..adapter.config.clone() };
    assert_eq!(loaded.config.to_fields(), written.to_fields());
    assert_eq!(loaded.specs(base), adapter.specs(base));
    assert_eq!(loaded.start(base), adapter.start(base));
    let expected = host.logits(&adapter.method.valid());
    let change = distance(&expected, &host.logits(&subject.fresh().method.valid()));
    assert!(change > 1e-3, "random parameters change the logits by {change:e} only");
    let found = host.logits(&loaded.method.valid());
    assert_close("logits of the loaded adapter", &found, &expected, 1e-6);
}
