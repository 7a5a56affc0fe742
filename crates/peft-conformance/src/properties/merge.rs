//! Folding a method into the base, and out of it.

use burn::module::Module;
use peft_core::{EmptyPass, Hooks, merge_obstacle};
use peft_format::{Error, merged_tensors, tensors_under, unmerged_tensors};

use crate::Subject;
use crate::numbers::{assert_close, distance, numbers};

/// A model with the method merged in gives the adapted logits; where the method cannot be merged,
/// merging is an error that says why.
///
/// # Panics
/// If it is otherwise.
pub fn merged_equals_unmerged(subject: &Subject) {
    let (host, adapter) = (&subject.host, subject.trained(1));
    let base = host.model.base();
    let merged = merged_tensors(&adapter, base);
    if let Some(obstacle) = merge_obstacle(&adapter.method, base) {
        return assert_refused(merged.err(), &obstacle);
    }
    let adapted = host.logits(&adapter.method.valid());
    let change = distance(&adapted, &host.logits(&()));
    assert!(change > 1e-3, "random parameters change the logits by {change:e} only");
    let merged = merged.unwrap_or_else(|e| panic!("merging failed: {e}"));
    let merged = host.with_tensors(merged).logits(&());
    assert_close("merged and adapted logits", &merged, &adapted, 1e-4);
}

/// Unmerging a merged model gives the base's tensors, but for those that the adapter replaced and
/// that are listed. A method without an inverse says so.
///
/// # Panics
/// If it is otherwise.
pub fn unmerging_gives_the_base_back(subject: &Subject) {
    let (host, adapter) = (&subject.host, subject.trained(1));
    let base = host.model.base();
    if let Some(obstacle) = merge_obstacle(&adapter.method, base) {
        return assert_refused(unmerged_tensors(&adapter, base).err(), &obstacle);
    }
    let merged = merged_tensors(&adapter, base).unwrap_or_else(|e| panic!("merging failed: {e}"));
    let merged = host.with_tensors(merged);
    let (tensors, kept) = match unmerged_tensors(&adapter, merged.model.base()) {
        Ok(unmerged) => unmerged,
        Err(Error::Core(peft_core::Error::Merge { reason, .. })) => {
            let (hooks, parts) = (adapter.method.valid(), EmptyPass::new(base.device()));
            let without_inverse = base.linears().any(|site| {
                let edits = hooks.linear(site, &parts.pass());
                edits.invert(site, base.weight(site).dense()).is_err()
            });
            assert!(without_inverse, "every weight has an inverse, yet: {reason}");
            return;
        }
        Err(error) => panic!("unmerging failed: {error}"),
    };
    for (key, expected) in tensors_under(&(), base) {
        if !kept.contains(&key) {
            assert_close(&key, &numbers(&tensors[&key]), &numbers(&expected), 1e-5);
        }
    }
}

fn assert_refused(error: Option<Error>, obstacle: &str) {
    match error {
        Some(Error::Core(peft_core::Error::Merge { reason, .. })) => assert_eq!(reason, obstacle),
        other => panic!("it cannot be merged ({obstacle}), but merging gave {other:?}"),
    }
}
