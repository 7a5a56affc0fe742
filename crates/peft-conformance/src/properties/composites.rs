//! A method inside methods that are made of methods.

use burn::module::Module;
use peft_core::{
    AdapterPool, BoxedMethod, EmptyPass, Error, ExtraKeys, GateKind, GateOn, Gated, Hooks, Insert,
    KeyValues, Method, PerLayer, Site, SiteKind, Slots, Stack, merge_obstacle,
};
use peft_format::{Adapter, Composition, tensors_under};
use peft_models::Forward;

use crate::Subject;
use crate::numbers::{assert_close, numbers, values};

/// A method acts the same in a stack of one, in the average of two copies, where texts are split
/// between two copies, in all layers of a plan by layers, in a slot that all rows are under, and under gates that are wide open; beside another
/// method, above, below or averaged with it, the merged model gives the adapted logits. What has no
/// meaning is refused with an error that names the method.
///
/// # Panics
/// If it is otherwise.
pub fn acts_the_same_inside_composites(subject: &Subject) {
    let adapter = subject.trained(1);
    let adapter = Adapter { method: adapter.method.valid(), ..adapter };
    let boxed = || BoxedMethod::new(adapter.method.clone());
    same(subject, &adapter, "a stack of one", &Stack::new(vec![boxed()]));
    let layers = subject.host.model.base().sites().filter_map(|site| site.layer).max();
    let of_layer = vec![Some(0); layers.map_or(0, |last| last + 1)];
    let plan = PerLayer::new(vec![boxed()], of_layer, Some(0));
    same(subject, &adapter, "a plan by layers", &plan);

    let pair = || vec![adapter.clone(), adapter.clone()];
    if let Some(average) = composed(subject, &Composition::Average { weights: Vec::new() }, pair())
    {
        same(subject, &adapter, "the average of two copies", &average.method);
    }
    let expected = subject.host.logits(&adapter.method);
    let splits = vec![2, 3];
    if let Some(split) = composed(subject, &Composition::Split { splits }, pair()) {
        let split = subject.host.logits(&split.method);
        assert_close("logits of texts split between two copies", &split, &expected, 3e-5);
    }
    let pool = AdapterPool::new(vec![boxed()]);
    let slots = Slots::all(Some(0), subject.host.batch.len());
    let pooled = values(subject.host.outputs(Forward::infer(&pool).with_slots(&slots)));
    assert_close("logits of all rows in a slot", &pooled, &expected, 3e-5);
    if let Some(gated) = gated(subject, &adapter) {
        let open = subject.host.logits(&gated);
        assert_close("logits under open gates", &open, &expected, 1e-4);
    }

    let plain = subject.plain().trained(2);
    let plain = Adapter { method: plain.method.valid(), ..plain };
    for composition in [Composition::Stack, Composition::Average { weights: Vec::new() }] {
        for pair in [[&plain, &adapter], [&adapter, &plain]] {
            if let Some(both) = composed(subject, &composition, pair.map(Clone::clone).to_vec()) {
                merges(subject, &composition, &both.method);
            }
        }
    }
}

/// What two adapters are together, unless that is refused as it should be.
fn composed(
    subject: &Subject,
    composition: &Composition,
    adapters: Vec<Adapter>,
) -> Option<Adapter> {
    match composition.of(adapters, None, subject.host.model.base()) {
        Ok(composed) => Some(composed),
        Err(peft_format::Error::Core(Error::Compose { methods, reason, .. })) => {
            let name = subject.name();
            assert!(methods.contains(name), "{methods} does not name {name}");
            assert!(reason.contains(name), "{reason:?} does not name {name}");
            None
        }
        Err(error) => panic!("{composition:?} failed: {error}"),
    }
}

/// A composite computes what the method alone does, and has the same merged tensors, virtual tokens
/// and files.
fn same(subject: &Subject, adapter: &Adapter, what: &str, composite: &(impl Method + Clone)) {
    let (host, base) = (&subject.host, subject.host.model.base());
    let (found, expected) = (host.logits(composite), host.logits(&adapter.method));
    assert_close(&format!("logits in {what}, and alone"), &found, &expected, 3e-5);
    assert_eq!(composite.virtual_tokens(), adapter.method.virtual_tokens(), "in {what}");
    assert_eq!(composite.needs_padding(), adapter.method.needs_padding(), "in {what}");
    let obstacle = merge_obstacle(&adapter.method, base);
    assert_eq!(merge_obstacle(composite, base), obstacle, "in {what}");
    if obstacle.is_none() {
        let merged = tensors_under(composite, base);
        for (key, expected) in tensors_under(&adapter.method, base) {
            let what = format!("{key} merged in {what}, and alone");
            assert_close(&what, &numbers(&merged[&key]), &numbers(&expected), 1e-5);
        }
    }
}

/// Where two methods together can be merged, the merged model gives their logits.
fn merges(subject: &Subject, composition: &Composition, both: &Stack) {
    let (host, base) = (&subject.host, subject.host.model.base());
    let found = host.logits(both);
    if merge_obstacle(both, base).is_none() {
        let merged = host.with_tensors(tensors_under(both, base)).logits(&());
        assert_close(&format!("merged and adapted, {composition:?}"), &merged, &found, 1e-4);
    }
}

/// The method under gates that let everything through; `None` where it acts on what has none, or has
/// gates of its own there.
fn gated(subject: &Subject, adapter: &Adapter) -> Option<Stack> {
    let base = subject.host.model.base();
    let (saved, method) = adapter.parts();
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    let acts = |site: &Site| match site.kind {
        SiteKind::Linear => !method.linear(site, pass).is_none(),
        SiteKind::Attention => !method.attention(site, pass).is_none(),
        SiteKind::Sublayer => !matches!(method.sublayer(site, pass), Insert::None),
        SiteKind::Norm => !method.norm(site, pass).is_none(),
        SiteKind::Embedding => !method.table(site, pass).is_keep(),
    };
    let has_none = |site: &Site| {
        let keys = method.attention(site, pass);
        if keys.has_beside() {
            return true;
        }
        matches!(site.kind, SiteKind::Norm | SiteKind::Embedding) && acts(site)
            || matches!(keys, ExtraKeys::Some(KeyValues { gates, .. }) if !gates.is_empty())
            || !method.beside(site, pass).is_none()
    };
    let kind =
        GateKind { peft: "gate", adapters: "gates.{}", on: GateOn::Change, bias: Some(40.0) };
    let sites = base.sites().filter(|site| acts(site)).map(|site| (&**site, 1));
    let name = subject.name();
    let gated = Gated::new((name, method.clone()), kind, sites, &subject.context());
    match (gated, base.sites().find(|site| has_none(site))) {
        (Ok(gated), None) => {
            let methods = saved.into_iter().chain([BoxedMethod::new(gated)]).collect();
            Some(Stack::new(methods))
        }
        (Err(Error::Compose { methods, reason, .. }), Some(site)) => {
            assert_eq!(methods, name);
            assert!(reason.contains(&site.path), "{reason:?} does not name {}", site.path);
            None
        }
        (Err(error), _) => panic!("it was not put under gates: {error}"),
        (Ok(_), Some(site)) => panic!("it acts at {}, and was put under gates", site.path),
    }
}
