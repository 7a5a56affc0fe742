//! Methods applied one on another.

use burn::module::Module;
use burn::tensor::Tensor;
use peft_core::{
    BoxedMethod, Change, EmptyPass, Hooks, ModulesToSave, NormEdit, NormLayer, Stack, VectorEdit,
    merge_obstacle,
};

use crate::support::{
    Doubled, Fixed, HIDDEN, INNER, Parts, assert_close, bert, change, device, init, layer, names,
    random, random_lora, site, weight,
};

const UP: &str = "bert.encoder.layer.0.intermediate.dense";
const QUERY: &str = "bert.encoder.layer.1.attention.self.query";

#[test]
fn two_loras_add_up() {
    let base = bert();
    let [first, second] = [
        random_lora(2, 5.0, names(&["intermediate.dense", "query"])),
        random_lora(3, 7.0, names(&["intermediate.dense"])),
    ]
    .map(|config| init(&config, &base));
    let stack = Stack::new(vec![first.clone(), second.clone()]);

    let up = site(&base, UP);
    let frozen = base.weight(up).dense();
    let delta = |method: &BoxedMethod| weight(method, &base, up) - frozen.clone();
    let merged = frozen.clone() + delta(&first) + delta(&second);
    assert_close(weight(&stack, &base, up), merged.clone());

    let (parts, x) = (Parts::packed(&[3, 1, 4]), random([8, HIDDEN]));
    let pass = parts.pass();
    let through =
        |method: &dyn Hooks| method.linear(up, &pass).apply(&layer(&base, up), x.clone(), &pass);
    assert_close(through(&stack), through(&first) + through(&second) - through(&()));

    let edits = stack.linear(up, &pass);
    assert_close(edits.invert(up, merged).expect("it has an inverse"), frozen);
    assert_eq!(change(&stack, up), Change { weight: HIDDEN * INNER, bias: 0, rank: 5 });

    // Where one method alone acts, the stack is that one; where none does, the base.
    let query = site(&base, QUERY);
    assert_close(weight(&stack, &base, query), weight(&first, &base, query));
    let value = site(&base, "bert.encoder.layer.1.attention.self.value");
    assert!(stack.linear(value, &pass).is_none());
    assert_eq!(change(&stack, value), Change::default());
}

#[test]
fn an_upper_bound_never_exceeds_the_matrix() {
    let base = bert();
    let lora = |rank| init(&random_lora(rank, 5.0, names(&["query"])), &base);
    let stack = Stack::new(vec![lora(4), lora(5)]);
    let expected = Change { weight: HIDDEN * HIDDEN, bias: 0, rank: HIDDEN };
    assert_eq!(change(&stack, site(&base, QUERY)), expected);
}

#[test]
fn a_layer_holds_the_methods_below_it() {
    let base = bert();
    let query = site(&base, QUERY);
    let lora = init(&random_lora(2, 5.0, names(&["query"])), &base);
    let doubled = Fixed::linear(query, Doubled::edit());
    let (parts, x) = (Parts::packed(&[5]), random([5, HIDDEN]));
    let through = |methods: Vec<&BoxedMethod>| {
        let stack = Stack::new(methods.into_iter().cloned().collect());
        let edits = stack.linear(query, &parts.pass());
        edits.apply(&layer(&base, query), x.clone(), &parts.pass())
    };
    let (plain, adapted) = (through(Vec::new()), through(vec![&lora]));
    assert_close(through(vec![&lora, &doubled]), adapted.clone() * 2.0 + 1.0);
    assert_close(through(vec![&doubled, &lora]), adapted + plain + 1.0);
}

#[test]
fn the_one_on_top_decides_what_is_replaced() {
    let base = bert();
    let path = "bert.encoder.layer.0.output.LayerNorm";
    let norm = site(&base, path);
    let saved = ModulesToSave::new(&base, &[path.into()], &device()).expect("it fits").valid();
    let below = Fixed::norm(norm, NormEdit::set(random([HIDDEN]), Some(random([HIDDEN]))));
    let stack = Stack::new(vec![below, BoxedMethod::new(saved)]);
    let (parts, x) = (Parts::packed(&[2, 4]), random([6, HIDDEN]));
    let entry = base.at(norm);
    let gain = entry.gain.as_ref().expect("a gain");
    let layer = NormLayer::new(norm, gain, entry.bias.as_ref(), 1e-5);
    let through = |edit: &NormEdit| layer.forward(edit, x.clone(), &parts.pass());
    let edit = stack.norm(norm, &parts.pass());
    assert_close(through(&edit), through(&NormEdit::default()));
    // Of what it leaves alone, those below decide.
    let bias: Tensor<1> = random([HIDDEN]);
    let above = Fixed::norm(norm, NormEdit::set(random([HIDDEN]), None));
    let stack = Stack::new(vec![Fixed::norm(norm, NormEdit::bias(bias.clone())), above.clone()]);
    let expected = NormEdit { bias: VectorEdit::Set(bias), ..above.norm(norm, &parts.pass()) };
    assert_close(through(&stack.norm(norm, &parts.pass())), through(&expected));
}

#[test]
fn an_empty_stack_is_the_base() {
    let base = bert();
    let stack = Stack::new(Vec::new());
    let parts = EmptyPass::new(&device());
    assert!(base.sites().all(|site| {
        let pass = parts.pass();
        stack.linear(site, &pass).is_none()
            && stack.norm(site, &pass).is_none()
            && stack.table(site, &pass).is_keep()
            && stack.attention(site, &pass).is_none()
            && stack.sublayer(site, &pass).is_none()
    }));
    assert_eq!(merge_obstacle(&stack, &base), None);
}
