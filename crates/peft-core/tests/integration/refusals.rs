//! What cannot be put over what.

use std::sync::Arc;

use burn::module::ParamId;
use peft_core::{
    Edit, Edits, LowRank, Magnitude, MemoKey, Replaced, Role, Route, Routed, Scale, merge_obstacle,
};

use crate::support::{Doubled, Fixed, gate, linears, random};

const IN: usize = 6;
const OUT: usize = 10;

fn low_rank() -> Edits {
    LowRank::new(random([IN, 2]), random([2, OUT]), 1.0).into()
}

fn scale() -> Edits {
    Scale::output(random([OUT])).into()
}

fn bias() -> Edits {
    Edit::Bias(random([OUT])).into()
}

fn magnitude() -> Edits {
    let key = MemoKey { of: ParamId::new(), name: "norms", site: None };
    Magnitude::new(random([OUT]), key).into()
}

fn replaced() -> Edits {
    Edit::Weight(Arc::new(Replaced(random([IN, OUT])))).into()
}

fn gated(edits: Edits) -> Edits {
    Edit::Gated(gate(IN), edits).into()
}

fn mean(edits: Edits) -> Edits {
    Edit::Mean(vec![(0.5, edits), (0.5, Edits::none())]).into()
}

fn routed(edits: Edits) -> Edits {
    let key = MemoKey { of: ParamId::new(), name: "slots", site: None };
    Edit::Routed(Routed::new(vec![edits, Edits::none()], Route::Rows, key)).into()
}

const ANOTHER_WEIGHT: &str =
    "it puts another weight in the place of the one that the other changes";
const NO_WEIGHT: &str = "it changes a weight, and under the other there is none";
const ANOTHER_BIAS: &str = "it puts another bias in the place of the one that the other trains";
const NO_BIAS: &str = "it changes a bias, and under the other there is none";

#[test]
fn what_needs_more_than_is_left_is_refused() {
    let cases: [(&str, Edits, Edits, Option<&str>); 24] = [
        ("sums", low_rank(), low_rank(), None),
        ("a scale over anything", Doubled::edit(), scale(), None),
        ("a sum over a function", Doubled::edit(), low_rank(), None),
        ("a function over anything", magnitude(), Doubled::edit(), None),
        ("a weight over a change", low_rank(), replaced(), Some(ANOTHER_WEIGHT)),
        ("a weight over the base", Edits::none(), replaced(), None),
        ("a change over a weight", replaced(), low_rank(), None),
        ("a weight over a bias", bias(), replaced(), Some(ANOTHER_WEIGHT)),
        ("norms of a weight", low_rank(), magnitude(), None),
        ("norms of nothing", Doubled::edit(), magnitude(), Some(NO_WEIGHT)),
        ("norms under gates", gated(low_rank()), magnitude(), Some(NO_WEIGHT)),
        ("norms by slot", routed(low_rank()), magnitude(), Some(NO_WEIGHT)),
        ("a bias over a sum", low_rank(), bias(), None),
        ("a bias over a scale", scale(), bias(), None),
        ("two biases", bias(), bias(), Some(ANOTHER_BIAS)),
        ("a bias over the mean of one", mean(bias()), bias(), Some(ANOTHER_BIAS)),
        ("a bias over a function", Doubled::edit(), bias(), Some(NO_BIAS)),
        ("a bias over a gated sum", gated(low_rank()), bias(), None),
        ("a bias over a gated scale", gated(scale()), bias(), Some(NO_BIAS)),
        ("a bias over sums by slot", routed(low_rank()), bias(), None),
        ("a bias over scales by slot", routed(scale()), bias(), Some(NO_BIAS)),
        ("a gated bias over a function", Doubled::edit(), gated(bias()), Some(NO_BIAS)),
        ("a bias of a slot over a bias", bias(), routed(bias()), Some(ANOTHER_BIAS)),
        ("a mean with a weight over a change", low_rank(), mean(replaced()), Some(ANOTHER_WEIGHT)),
    ];
    for (what, below, above, reason) in cases {
        assert_eq!(below.refuses(&above), reason, "{what}");
    }
}

#[test]
fn the_edits_of_one_method_are_over_each_other_too() {
    assert_eq!(Edits::none().refuses(&bias().followed_by(bias())), Some(ANOTHER_BIAS));
    assert_eq!(low_rank().refuses(&Doubled::edit().followed_by(bias())), Some(NO_BIAS));
    assert_eq!(Edits::none().refuses(&low_rank().followed_by(replaced())), Some(ANOTHER_WEIGHT));
}

#[test]
fn a_bias_that_the_model_has_no_place_for_is_not_merged() {
    let mut base = linears(&["biased"]);
    base.linear("unbiased", Role::Other, None, random([IN, OUT]), None);
    let sites: Vec<_> = base.sites().cloned().collect();
    let [biased, unbiased] = &sites[..] else { panic!("two layers") };
    assert_eq!(merge_obstacle(&Fixed::linear(biased, bias()), &base), None);
    assert_eq!(merge_obstacle(&Fixed::linear(unbiased, scale()), &base), None);
    assert_eq!(
        merge_obstacle(&Fixed::linear(unbiased, bias()), &base).as_deref(),
        Some("it gives unbiased a bias, and the model has none there")
    );
    assert_eq!(
        merge_obstacle(&Fixed::linear(biased, Doubled::edit()), &base).as_deref(),
        Some("it doubles the output")
    );
}
