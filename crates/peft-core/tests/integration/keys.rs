//! Keys and values before those of a text.

use burn::module::ParamId;
use burn::tensor::{Tensor, activation::sigmoid};
use peft_core::{Base, Beside, ExtraKeys, Gate, KeyValues, MemoKey, Pass, Role, RowKeys, Site};

use crate::support::{Parts, assert_close, device, gate, random, values};

const D: usize = 5;
const HEADS: usize = 2;
const SIZE: usize = 3;

fn base() -> Base {
    let mut base = Base::new(&device());
    base.attention("attention", Role::SelfAttention, Some(0), [D, HEADS * SIZE]);
    base
}

fn site(base: &Base) -> &Site {
    base.sites().next().expect("one")
}

fn key_values(added: usize) -> KeyValues {
    let states = || random([added, HEADS * SIZE]);
    KeyValues { key: states(), value: states(), dropout: 0.0, gates: Vec::new() }
}

fn some(states: &KeyValues) -> ExtraKeys {
    ExtraKeys::Some(states.clone())
}

/// `[added, heads · size]` by head, `[1, heads, added, size]`.
fn by_head(states: &Tensor<2>) -> Tensor<4> {
    let [added, _] = states.dims();
    states.clone().reshape([1, added, HEADS, SIZE]).swap_dims(1, 2)
}

fn of_rows(keys: &ExtraKeys, hidden: &Tensor<2>, parts: &Parts) -> Option<RowKeys> {
    let base = base();
    keys.of_rows(site(&base), hidden, HEADS, &parts.pass())
}

/// The last `count` keys of a row.
fn last(states: &Tensor<4>, row: usize, count: usize) -> Tensor<4> {
    let [_, _, added, _] = states.dims();
    states.clone().narrow(0, row, 1).narrow(2, added - count, count)
}

#[test]
fn every_row_has_the_same_keys() {
    let (states, parts) = (key_values(4), Parts::packed(&[3, 1]));
    let found = of_rows(&some(&states), &random([4, D]), &parts).expect("some");
    assert_eq!((found.key.dims(), &found.counts[..]), ([2, HEADS, 4, SIZE], &[4, 4][..]));
    for row in 0..2 {
        assert_close(last(&found.key, row, 4), by_head(&states.key));
        assert_close(last(&found.value, row, 4), by_head(&states.value));
    }
    assert!(of_rows(&ExtraKeys::None, &random([4, D]), &parts).is_none());
}

#[test]
fn the_first_of_a_stack_is_nearest_to_the_text() {
    let (near, far, parts) = (key_values(2), key_values(3), Parts::packed(&[3, 1]));
    let stack = ExtraKeys::Stack(vec![some(&near), some(&far)]);
    let found = of_rows(&stack, &random([4, D]), &parts).expect("some");
    assert_eq!(found.counts, [5, 5]);
    let expected = Tensor::cat(vec![by_head(&far.key), by_head(&near.key)], 2);
    assert_close(last(&found.key, 1, 5), expected);
}

#[test]
fn a_gate_scales_the_keys_of_a_row() {
    let gate = gate(D);
    let (states, parts, hidden) = (key_values(2), Parts::packed(&[3, 1]), random::<2>([4, D]));
    let open = sigmoid(hidden.clone().matmul(gate.weight.clone()) + gate.bias.clone().unsqueeze());
    let gated = ExtraKeys::Some(KeyValues { gates: vec![gate], ..states.clone() });
    let found = of_rows(&gated, &hidden, &parts).expect("some");
    for (row, (from, tokens)) in [(0, 3), (3, 1)].into_iter().enumerate() {
        let open = open.clone().narrow(0, from, tokens).mean().into_scalar::<f32>();
        assert_close(last(&found.key, row, 2), by_head(&states.key) * open);
        assert_close(last(&found.value, row, 2), by_head(&states.value) * open);
    }
}

#[test]
fn keys_and_values_may_have_a_gate_each() {
    let gates = vec![gate(D), gate(D)];
    let (states, parts, hidden) = (key_values(2), Parts::packed(&[3, 1]), random::<2>([4, D]));
    let alone = |gate: &Gate| {
        let keys = ExtraKeys::Some(KeyValues { gates: vec![gate.clone()], ..states.clone() });
        of_rows(&keys, &hidden, &parts).expect("some")
    };
    let [first, second] = [&gates[0], &gates[1]].map(alone);
    let both = ExtraKeys::Some(KeyValues { gates, ..states.clone() });
    let found = of_rows(&both, &hidden, &parts).expect("some");
    assert_close(found.key, first.key);
    assert_close(found.value, second.value);
}

#[test]
fn dropout_of_keys_acts_in_training_on_each_row_by_itself() {
    let states = KeyValues { dropout: 0.5, ..key_values(6) };
    let base = base();
    let drawn = |step: Option<u64>| {
        let parts = Parts::packed(&[3, 1]);
        let pass = step.map_or_else(|| parts.pass(), |step| parts.training(step));
        some(&states).of_rows(site(&base), &random([4, D]), HEADS, &pass).expect("some")
    };
    let plain = drawn(None);
    assert_eq!(values(last(&plain.key, 0, 6)), values(by_head(&states.key)));
    let (first, again, second) = (drawn(Some(0)), drawn(Some(0)), drawn(Some(1)));
    assert_eq!(values(first.key.clone()), values(again.key));
    assert_ne!(values(first.key.clone()), values(second.key));
    assert_ne!(values(last(&first.key, 0, 6)), values(last(&first.key, 1, 6)));
    assert_ne!(values(first.value), values(plain.value));
}

#[test]
fn each_row_of_a_batch_has_the_keys_of_its_slot() {
    let (two, four) = (key_values(2), key_values(4));
    let gate = gate(D);
    let gated = ExtraKeys::Some(KeyValues { gates: vec![gate], ..two.clone() });
    let members =
        [some(&two), ExtraKeys::Stack(vec![some(&four), gated]), ExtraKeys::None, some(&four)];
    for slots in [
        [Some(1), None, Some(0), Some(3), Some(2)],
        [Some(0), Some(0), Some(0), Some(0), Some(0)],
        [Some(0), Some(1), Some(2), Some(3), None],
    ] {
        let parts = Parts::packed(&[2, 1, 3, 1, 2]).in_slots(&slots);
        let hidden = random::<2>([9, D]);
        let together = of_rows(&ExtraKeys::Routed(members.to_vec()), &hidden, &parts);
        let together = together.expect("some have keys");
        for (row, slot) in slots.iter().enumerate() {
            let alone = Parts::over(parts.rows.subset(&[row]));
            let own = slot.and_then(|slot| {
                of_rows(&members[slot], &parts.rows.take(hidden.clone(), &[row]), &alone)
            });
            let count = own.as_ref().map_or(0, |own| own.key.dims()[2]);
            assert_eq!(together.counts[row], count);
            if let Some(own) = own {
                assert_close(last(&together.key, row, count), own.key);
                assert_close(last(&together.value, row, count), own.value);
            }
        }
    }
}

#[test]
fn where_no_row_has_keys_there_are_none() {
    let parts = Parts::packed(&[2, 1]).in_slots(&[None, Some(1)]);
    let routed = ExtraKeys::Routed(vec![some(&key_values(2)), ExtraKeys::None]);
    assert!(of_rows(&routed, &random([3, D]), &parts).is_none());
}

fn beside() -> ExtraKeys {
    let key = MemoKey { of: ParamId::new(), name: "keys and values", site: None };
    ExtraKeys::Beside(Beside { prompt: random([3, D]), gate: random([1]), key })
}

#[test]
fn prompts_beside_a_text_are_read_by_the_rows_of_their_slot() {
    let read = |beside: &Beside, query: Tensor<2>, _: &Pass<'_>| {
        query.matmul(beside.prompt.clone().transpose()).matmul(beside.prompt.clone())
            * beside.gate.clone().unsqueeze()
    };
    let (one, two) = (beside(), beside());
    let both = ExtraKeys::Stack(vec![one.clone(), some(&key_values(2)), two.clone()]);
    let parts = Parts::packed(&[2, 1, 3]).in_slots(&[Some(1), None, Some(0)]);
    let query = random::<2>([6, D]);
    let of = |keys: &ExtraKeys| keys.beside(&query, &parts.pass(), &read).expect("there are some");
    assert_close(of(&both), of(&one) + of(&two));
    // Keys in front are no part of it, and it has none in front.
    assert!(some(&key_values(2)).beside(&query, &parts.pass(), &read).is_none());
    assert!(of_rows(&one, &query, &parts).is_none() && of_rows(&both, &query, &parts).is_some());
    let routed = of(&ExtraKeys::Routed(vec![one.clone(), both.clone()]));
    let expected =
        vec![of(&both).narrow(0, 0, 2), Tensor::zeros([1, D], &device()), of(&one).narrow(0, 3, 3)];
    assert_close(routed, Tensor::cat(expected, 0));
}
