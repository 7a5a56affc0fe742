//! Methods applied one on another.

use burn::tensor::Tensor;
use peft_core::{
    AnyConfig, BoxedMethod, Change, Hooks, LinearLayer, Method, ModulesToSave, NormLayer, Stack,
};

use crate::support::{HIDDEN, INNER, assert_close, bert, device, names, random, random_lora, site};

const UP: &str = "bert.encoder.layer.0.intermediate.dense";
const QUERY: &str = "bert.encoder.layer.1.attention.self.query";

#[test]
fn two_loras_add_up() {
    let base = bert();
    let [first, second] = [
        random_lora(2, 5.0, names(&["intermediate.dense", "query"])),
        random_lora(3, 7.0, names(&["intermediate.dense"])),
    ]
    .map(|config| AnyConfig::init(&config, &base, &device()).expect("it fits"));
    let stack = Stack::new(vec![first.clone(), second.clone()]);

    let entry = base.at(site(&base, UP));
    let weight = base.weight(&entry.site);
    let layer = LinearLayer::new(&entry.site, weight, entry.bias.as_ref());
    let delta = |method: &BoxedMethod| method.weight(&layer).expect("adapted") - weight.dense();
    let merged = weight.dense() + delta(&first) + delta(&second);
    assert_close(stack.weight(&layer).expect("adapted"), merged.clone());

    let input = random::<3>([2, 4, HIDDEN]);
    let through = |method: &dyn Hooks| method.linear(&layer, input.clone());
    let plain = layer.forward(input.clone());
    let sum = through(&first) + through(&second) - plain.clone();
    assert_close(through(&stack), sum);

    let merged = merged.into();
    let merged_layer = LinearLayer::new(&entry.site, &merged, None);
    assert_close(stack.unmerged_weight(&merged_layer).expect("it has an inverse"), weight.dense());
    assert_eq!(stack.change(&entry.site), Change { weight: HIDDEN * INNER, bias: 0, rank: 5 });

    // Where one method alone acts, the stack is that one; where none does, the base.
    let query = base.at(site(&base, QUERY));
    let weight = base.weight(&query.site);
    let layer = LinearLayer::new(&query.site, weight, None);
    let alone = first.weight(&layer).expect("adapted");
    assert_close(stack.weight(&layer).expect("adapted"), alone);
    let value = base.at(site(&base, "bert.encoder.layer.1.attention.self.value"));
    let weight = base.weight(&value.site);
    assert!(stack.weight(&LinearLayer::new(&value.site, weight, None)).is_none());
    assert_eq!(stack.change(&value.site), Change::default());
}

#[test]
fn an_upper_bound_never_exceeds_the_matrix() {
    let base = bert();
    let lora = |rank| {
        let config = random_lora(rank, 5.0, names(&["query"]));
        AnyConfig::init(&config, &base, &device()).expect("it fits")
    };
    let stack = Stack::new(vec![lora(4), lora(5)]);
    let expected = Change { weight: HIDDEN * HIDDEN, bias: 0, rank: HIDDEN };
    assert_eq!(stack.change(site(&base, QUERY)), expected);
}

/// `2 y + 1` after every linear layer and norm, to see what is below what.
#[derive(Debug)]
struct Doubled;

impl Hooks for Doubled {
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        layer.forward(input) * 2.0 + 1.0
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        layer.forward(input) * 2.0 + 1.0
    }
}

#[test]
fn a_layer_holds_the_methods_below_it() {
    let base = bert();
    let config = random_lora(2, 5.0, names(&["query"]));
    let lora = AnyConfig::init(&config, &base, &device()).expect("it fits");
    let entry = base.at(site(&base, QUERY));
    let weight = base.weight(&entry.site);
    let layer = LinearLayer::new(&entry.site, weight, entry.bias.as_ref());
    let input = random::<3>([2, 4, HIDDEN]);
    let plain = layer.forward(input.clone());
    let adapted = lora.linear(&layer, input.clone());
    let below = layer.with(&lora);
    assert_close(Doubled.linear(&below, input.clone()), adapted.clone() * 2.0 + 1.0);
    let below = layer.with(&Doubled);
    assert_close(lora.linear(&below, input), adapted + plain + 1.0);
}

#[test]
fn the_one_on_top_decides_what_is_replaced() {
    let base = bert();
    let norm_path = "bert.encoder.layer.0.output.LayerNorm";
    let saved = || ModulesToSave::new(&base, &[norm_path.into()], &device()).expect("it fits");
    let stack = Stack::new(vec![BoxedMethod::new(saved()), BoxedMethod::new(saved())]);
    let entry = base.at(site(&base, norm_path));
    let gain = entry.gain.clone().expect("a gain");
    let other = random::<1>([HIDDEN]);
    let layer = NormLayer::new(&entry.site, &other, None, 1e-5);
    assert_close(stack.norm_gain(&layer).expect("replaced").inner(), gain.clone());
    let input = random::<3>([2, 4, HIDDEN]);
    let expected = layer.normalize(input.clone(), gain, entry.bias.clone());
    assert_close(stack.norm(&layer, input).inner(), expected);
}

#[test]
fn an_empty_stack_is_the_base() {
    let base = bert();
    let stack = Stack::new(Vec::new());
    let entry = base.at(site(&base, UP));
    let weight = base.weight(&entry.site);
    let layer = LinearLayer::new(&entry.site, weight, entry.bias.as_ref());
    let input = random::<3>([2, 4, HIDDEN]);
    assert!(stack.weight(&layer).is_none() && stack.merge_obstacle().is_none());
    assert_close(stack.linear(&layer, input.clone()), layer.forward(input));
}
