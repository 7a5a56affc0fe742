//! What is put under gates, and what is not.

use peft_core::{
    Base, BoxedMethod, Edits, GateKind, GateOn, Gated, InitContext, LowRank, ModulesToSave,
    NormEdit, Site,
};

use crate::support::{Fixed, HIDDEN, bert, device, random, site};

const NORM: &str = "bert.encoder.layer.1.output.LayerNorm";
const QUERY: &str = "bert.encoder.layer.1.attention.self.query";

/// A method under gates at these sites, or why not.
fn gated(method: BoxedMethod, sites: &[(&Site, usize)], base: &Base) -> Result<Gated, String> {
    let kind = GateKind { peft: "gate", adapters: "gates.{}", on: GateOn::Change, bias: None };
    let sites = sites.iter().copied();
    Gated::new(("some", method), kind, sites, &InitContext::new(base, &device()))
        .map_err(|e| e.to_string())
}

fn low_ranks(count: usize) -> Edits {
    let low_rank = || LowRank::new(random([HIDDEN, 2]), random([2, HIDDEN]), 1.0);
    (0..count).map(|_| low_rank().into()).collect()
}

#[test]
fn a_method_that_acts_at_norms_or_embeddings_is_refused_with_or_without_a_gate_there() {
    let base = bert();
    let norm = site(&base, NORM);
    let words = site(&base, "bert.embeddings.word_embeddings");
    let saved = || ModulesToSave::new(&base, &["word_embeddings".into()], &device());
    for (method, at) in [
        (Fixed::norm(norm, NormEdit::bias(random([HIDDEN]))), norm),
        (Fixed::norm(norm, NormEdit::set(random([HIDDEN]), None)), norm),
        (BoxedMethod::new(saved().expect("it fits")), words),
    ] {
        let error = gated(method.clone(), &[], &base).expect_err("there is no gate");
        assert_eq!(
            error,
            format!("gate of some: some acts at {}, where there is no gate", at.path)
        );
        let error = gated(method, &[(at, 1)], &base).expect_err("it cannot be scaled");
        let expected = format!("gate of some: some acts at {}, which a gate cannot scale", at.path);
        assert_eq!(error, expected);
    }
}

#[test]
fn a_change_is_under_one_gate_or_each_of_its_parts_under_its_own() {
    let base = bert();
    let (query, other) =
        (site(&base, QUERY), site(&base, "bert.encoder.layer.0.attention.self.query"));
    let at_query = |parts| Fixed::linear(query, low_ranks(parts));
    for (parts, gates) in [(1, 1), (3, 1), (3, 3)] {
        gated(at_query(parts), &[(query, gates)], &base).expect("they fit");
    }
    let error = gated(at_query(3), &[(query, 2)], &base).expect_err("one has none");
    let expected = format!("some acts at {QUERY}, where its parts are 3 and its gates 2");
    assert!(error.ends_with(&expected), "{error}");
    // What has no gate would be left out.
    let error = gated(at_query(1), &[(other, 1)], &base).expect_err("it has none");
    assert!(error.ends_with(&format!("some acts at {QUERY}, where there is no gate")), "{error}");
}
