//! The dense form of a method, and folding it into the base and out again.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, module::linear};
use peft_core::{
    Error, Hooks, LinearLayer, Method, NormLayer, SiteKind, merged_tensors, tensors_under,
    unmerged_tensors,
};

use crate::Subject;
use crate::numbers::{Normal, assert_close, distance, numbers, values};

/// A model with the method merged in gives the adapted logits; where the method cannot be merged,
/// merging is an error that says why.
///
/// # Panics
/// If it is otherwise.
pub fn merged_equals_unmerged(subject: &Subject) {
    let (host, adapter) = (&subject.host, subject.trained(1));
    let merged = merged_tensors(&adapter, host.model.base());
    if let Some(obstacle) = adapter.method.merge_obstacle() {
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
    if let Some(obstacle) = adapter.method.merge_obstacle() {
        return assert_refused(unmerged_tensors(&adapter, base).err(), &obstacle);
    }
    let merged = merged_tensors(&adapter, base).unwrap_or_else(|e| panic!("merging failed: {e}"));
    let merged = host.with_tensors(merged);
    let (tensors, kept) = match unmerged_tensors(&adapter, merged.model.base()) {
        Ok(unmerged) => unmerged,
        Err(Error::Merge { reason, .. }) => {
            let hooks = adapter.method.valid();
            let without_inverse = base.linears().any(|site| {
                let layer = LinearLayer::new(site, base.weight(site), None);
                hooks.weight(&layer).is_some() && hooks.unmerged_weight(&layer).is_none()
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
        Some(Error::Merge { reason, .. }) => assert_eq!(reason, obstacle),
        other => panic!("it cannot be merged ({obstacle}), but merging gave {other:?}"),
    }
}

/// Each linear layer and norm computes what its weight and bias under the method say, on random
/// input. Layers of a method that cannot be merged are compared where it states a weight.
///
/// # Panics
/// If one computes something else.
pub fn weight_agrees_with_linear(subject: &Subject) {
    let adapter = subject.trained(1);
    let hooks = adapter.method.valid();
    let partial = hooks.merge_obstacle().is_some();
    let base = subject.host.model.base();
    let mut normal = Normal::new(5);
    let mut compared = 0;
    for entry in base.iter() {
        let site = &entry.site;
        let shape = [2, 3, site.d_in()];
        let mut input = || {
            let values = normal.take(shape.iter().product());
            Tensor::<3>::from_data(TensorData::new(values, shape), base.device())
        };
        let (found, expected) = match (site.kind, &entry.weight, &entry.gain) {
            (SiteKind::Linear, Some(weight), _) => {
                let layer = LinearLayer::new(site, weight, entry.bias.as_ref());
                let changed = hooks.weight(&layer);
                if changed.is_none() && partial {
                    continue;
                }
                let bias = hooks.bias(&layer).or_else(|| layer.bias());
                let input = input();
                let expected = linear(input.clone(), changed.unwrap_or(layer.weight()), bias);
                (hooks.linear(&layer, input), expected)
            }
            (SiteKind::Norm, _, Some(gain)) => {
                let layer = NormLayer::new(site, gain, entry.bias.as_ref(), 1e-12);
                let changed = hooks.norm_gain(&layer);
                if changed.is_none() && partial {
                    continue;
                }
                let bias = hooks.norm_bias(&layer).or_else(|| layer.bias());
                let input = input();
                let gain = changed.unwrap_or(layer.gain());
                let expected = layer.normalize(input.clone(), gain, bias);
                (hooks.norm(&layer, input), expected)
            }
            _ => continue,
        };
        compared += 1;
        let what = format!("output at {site} and that of its weight");
        assert_close(&what, &values(found), &values(expected), 1e-5);
    }
    assert!(compared > 0 || partial, "no layer was compared");
}
