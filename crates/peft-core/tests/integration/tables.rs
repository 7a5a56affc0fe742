//! Edits of embeddings.

use burn::module::ParamId;
use burn::tensor::{Int, Tensor};
use peft_core::{Base, Change, FrozenWeight, LinearLayer, Role, Route, Site, TableEdit, TableRows};
use peft_core::{Edits, LowRank, Magnitude, MemoKey};

use crate::support::{Parts, assert_close, device, random, values};

const ENTRIES: usize = 9;
const D: usize = 4;

/// A table, and a head that is tied to it.
fn base() -> Base {
    let mut base = Base::new(&device());
    let table = random::<2>([ENTRIES, D]);
    base.embedding("words", Role::WordEmbedding, table.clone());
    let words = base.sites().next().cloned();
    base.unembedding("lm_head", table.transpose(), Some(random([ENTRIES])), words.as_deref());
    base
}

fn site<'b>(base: &'b Base, path: &str) -> &'b Site {
    crate::support::site(base, path)
}

fn rows(indices: &[usize]) -> TableEdit {
    TableEdit::Rows(TableRows { indices: indices.into(), values: random([indices.len(), D]) })
}

fn low_rank() -> TableEdit {
    TableEdit::LowRank(Box::new(LowRank::new(random([ENTRIES, 2]), random([2, D]), 0.7)))
}

fn scaled() -> TableEdit {
    TableEdit::Scaled(Box::new(LowRank::new(random([ENTRIES, 2]), random([2, D]), 0.7)))
}

fn magnitude() -> TableEdit {
    let key = MemoKey { of: ParamId::new(), name: "norms", site: None };
    TableEdit::Magnitude(Magnitude::new(random::<1>([D]).abs() + 0.5, key))
}

fn replaced() -> TableEdit {
    TableEdit::Replaced(random([ENTRIES, D]))
}

/// The rows of a table with these indices.
fn select(table: Tensor<2>, ids: &[usize]) -> Tensor<2> {
    let ids: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
    table.select(0, Tensor::<1, Int>::from_data(&ids[..], &device()))
}

/// What is looked up, compared with and merged is one table, for each row of a batch.
#[track_caller]
fn one_table(edit: &TableEdit) {
    let base = base();
    let (words, head) = (site(&base, "words"), site(&base, "lm_head"));
    let (table, bias) = (base.weight(words), base.at(head).bias.as_ref());
    let parts = Parts::packed(&[4, 2]);
    let ids = [7, 0, 7, 3, 8, 2];
    let whole = edit.dense(table.dense());
    assert_close(edit.lookup(table, &ids, &parts.pass()), select(whole.clone(), &ids));

    let x: Tensor<2> = random([6, D]);
    let layer = LinearLayer::new(head, base.weight(head), bias);
    let compared = |edits: Edits| edits.apply(&layer.of_table(edit), x.clone(), &parts.pass());
    let scores = x.clone().matmul(whole.transpose());
    let bias = bias.expect("a bias").clone().unsqueeze();
    assert_close(compared(Edits::none()), scores.clone() + bias.clone());
    // A change of the head itself is beside that.
    let (a, b) = (random::<2>([D, 2]), random::<2>([2, ENTRIES]));
    let delta = x.clone().matmul(a.clone()).matmul(b.clone()) * 0.3;
    assert_close(compared(LowRank::new(a, b, 0.3).into()), scores + bias + delta);
    let (dense, _) = Edits::none().dense(&layer.of_table(edit));
    assert_close(dense, edit.dense(table.dense()).transpose());
}

#[test]
fn every_form_is_one_table() {
    one_table(&TableEdit::Keep);
    one_table(&replaced());
    one_table(&rows(&[7, 2]));
    one_table(&rows(&[5]));
    one_table(&low_rank());
    one_table(&scaled());
    one_table(&magnitude());
    one_table(&TableEdit::Stack(vec![rows(&[7]), low_rank(), magnitude(), low_rank()]));
    one_table(&TableEdit::Mean(vec![(0.5, magnitude()), (0.5, replaced())]));
    one_table(&TableEdit::Stack(vec![rows(&[7]), scaled(), low_rank()]));
    one_table(&TableEdit::Mean(vec![(0.5, scaled()), (0.5, replaced())]));
    one_table(&TableEdit::Stack(vec![rows(&[7, 2]), low_rank(), low_rank()]));
    one_table(&TableEdit::Mean(vec![(0.75, low_rank()), (0.25, rows(&[1]))]));
    one_table(&TableEdit::Stack(vec![rows(&[7]), TableEdit::Keep, rows(&[0, 3])]));
    one_table(&TableEdit::Stack(vec![replaced(), rows(&[7])]));
    one_table(&TableEdit::Mean(vec![
        (0.25, rows(&[7, 2])),
        (0.5, replaced()),
        (0.25, TableEdit::Keep),
    ]));
    one_table(&TableEdit::Stack(vec![
        rows(&[1]),
        TableEdit::Mean(vec![(0.5, rows(&[7])), (0.5, TableEdit::Keep)]),
    ]));
}

#[test]
fn rows_that_are_replaced_are_so_to_the_last_bit() {
    let base = base();
    let table = base.weight(site(&base, "words"));
    let TableEdit::Rows(edit) = rows(&[7, 2]) else { unreachable!("rows") };
    let whole = TableEdit::Rows(edit.clone()).dense(table.dense());
    assert_eq!(values(select(whole.clone(), &[7, 2])), values(edit.values));
    let others = [0, 1, 3, 4, 5, 6, 8];
    assert_eq!(values(select(whole, &others)), values(select(table.dense(), &others)));
}

#[test]
fn each_row_of_a_batch_reads_the_table_of_its_slot() {
    let base = base();
    let (words, head) = (site(&base, "words"), site(&base, "lm_head"));
    let (table, layer) = (base.weight(words), LinearLayer::new(head, base.weight(head), None));
    let members = vec![rows(&[7, 2]), replaced(), TableEdit::Keep];
    let edit = TableEdit::Routed(Route::Rows, members.clone());
    let slots = [Some(1), None, Some(0), Some(2), Some(0)];
    let parts = Parts::packed(&[2, 1, 3, 1, 2]).in_slots(&slots);
    let ids = [7, 1, 7, 2, 7, 0, 7, 5, 2];
    let found = edit.lookup(table, &ids, &parts.pass());
    let x: Tensor<2> = random([9, D]);
    let scores = Edits::none().apply(&layer.of_table(&edit), x.clone(), &parts.pass());
    for (row, slot) in slots.iter().enumerate() {
        let own = slot.map_or(&TableEdit::Keep, |slot| &members[slot]);
        let places = parts.rows.start(row)..parts.rows.start(row + 1);
        let whole = own.dense(table.dense());
        let expected = select(whole.clone(), &ids[places]);
        assert_close(parts.rows.take(found.clone(), &[row]), expected);
        let expected = parts.rows.take(x.clone(), &[row]).matmul(whole.transpose());
        assert_close(parts.rows.take(scores.clone(), &[row]), expected);
    }
    assert_eq!(edit.change(words), Change::default());
}

#[test]
fn counts_are_those_of_the_rows() {
    let base = base();
    let words = site(&base, "words");
    let change = |weight, rank| Change { weight, bias: 0, rank };
    assert_eq!(TableEdit::Keep.change(words), Change::default());
    assert_eq!(replaced().change(words), change(ENTRIES * D, D));
    assert_eq!(rows(&[7, 2]).change(words), change(2 * D, 2));
    let stack = TableEdit::Stack(vec![rows(&[7, 2]), rows(&[1]), rows(&[0, 5])]);
    assert_eq!(stack.change(words), change(5 * D, D));
}

#[test]
fn rows_over_the_same_rows_are_refused() {
    let reason = Some("it puts other rows of embeddings in the place of those of the other");
    assert_eq!(rows(&[1, 2]).refuses(&rows(&[3])), None);
    assert_eq!(rows(&[1, 2]).refuses(&rows(&[3, 2])), reason);
    assert_eq!(rows(&[1]).refuses(&replaced()), reason);
    assert_eq!(TableEdit::Keep.refuses(&replaced()), None);
    assert_eq!(
        TableEdit::Routed(Route::Rows, vec![TableEdit::Keep, rows(&[4])]).refuses(&rows(&[4])),
        reason
    );
    assert_eq!(rows(&[4]).refuses(&TableEdit::Routed(Route::Rows, vec![rows(&[3])])), None);
}

#[test]
fn a_table_without_its_own_head_is_read_only() {
    let frozen = FrozenWeight::from(random::<2>([ENTRIES, D]));
    let parts = Parts::packed(&[2]);
    let found = TableEdit::Keep.lookup(&frozen, &[3, 3], &parts.pass());
    assert_eq!(values(found), values(select(frozen.dense(), &[3, 3])));
}
