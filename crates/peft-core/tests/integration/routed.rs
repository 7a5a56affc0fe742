//! Rows of a batch under different edits of a layer.

use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::Tensor;
use peft_core::{
    AdapterPool, Base, BoxedMethod, Edit, Edits, Hooks, LowRank, Magnitude, MemoKey, Replaced,
    Role, Rotate, Route, Routed, Row, Rows, Scale, Side, Site,
};

use crate::support::{Doubled, Fixed, Parts, assert_close, device, gate, layer, random};

const IN: usize = 6;
const OUT: usize = 10;
/// Rows of different lengths, not in the order of their slots.
const LENGTHS: [usize; 5] = [3, 1, 2, 4, 2];

fn base() -> Base {
    let mut base = Base::new(&device());
    base.linear("up", Role::Other, None, random([IN, OUT]), Some(random([OUT])));
    base
}

fn site(base: &Base) -> &Site {
    base.sites().next().expect("one")
}

fn low_rank(rank: usize) -> LowRank {
    LowRank::new(random([IN, rank]), random([rank, OUT]), 1.7)
}

fn key(name: &'static str) -> MemoKey {
    MemoKey { of: ParamId::new(), name, site: Some(0) }
}

fn magnitude() -> Magnitude {
    Magnitude::new(random::<1>([OUT]).abs() + 0.5, key("norms"))
}

fn routed(members: &[Edits]) -> Edits {
    Edits::from(Edit::Routed(Routed::new(members.to_vec(), Route::Rows, key("slots"))))
}

/// Every row of a batch is what it is alone under the edits of its slot, between others.
#[track_caller]
fn each_as_alone(
    below: &Edits,
    members: &[Edits],
    above: &Edits,
    rows: Rows,
    slots: &[Option<usize>],
) {
    let base = base();
    let (site, layer) = (site(&base), layer(&base, site(&base)));
    let parts = Parts::over(rows).in_slots(slots);
    let x: Tensor<2> = random([parts.rows.tokens(), IN]);
    let around =
        |middle: &Edits| below.clone().followed_by(middle.clone()).followed_by(above.clone());
    let edits = around(&routed(members));
    assert_eq!(edits.obstacle(), Some("rows of a batch have different adapters"), "{site}");
    let together = edits.apply(&layer, x.clone(), &parts.pass());
    for (number, slot) in slots.iter().enumerate() {
        let alone = Parts::over(parts.rows.subset(&[number]));
        let x = parts.rows.take(x.clone(), &[number]);
        let middle = slot.map_or_else(Edits::none, |slot| members[slot].clone());
        let expected = around(&middle).apply(&layer, x, &alone.pass());
        assert_close(parts.rows.take(together.clone(), &[number]), expected);
    }
    // What is kept of the factors is there again.
    assert_close(edits.apply(&layer, x, &parts.pass()), together);
}

fn packed() -> Rows {
    Rows::packed(&LENGTHS, &device())
}

/// Rows as long as the longest, the tokens of which are in front.
fn padded() -> Rows {
    let row = |&length: &usize| {
        let mask = Some((0..4).map(|place| place < length).collect());
        Row { mask, ..Row::new(4) }
    };
    Rows::new(LENGTHS.iter().map(row).collect(), &device())
}

/// Mixed, in no order; all in one slot; in order, as long as each other; under none.
const SLOTS: [[Option<usize>; 5]; 5] = [
    [Some(2), None, Some(0), Some(2), Some(1)],
    [Some(1), Some(1), Some(1), Some(1), Some(1)],
    [Some(0), Some(0), Some(1), Some(1), Some(2)],
    [None, Some(2), Some(2), Some(0), None],
    [None, None, None, None, None],
];

#[track_caller]
fn in_all_slots(below: &Edits, members: &[Edits], above: &Edits) {
    for slots in &SLOTS {
        each_as_alone(below, members, above, packed(), slots);
        each_as_alone(below, members, above, padded(), slots);
    }
}

#[test]
fn low_ranks_of_different_widths_are_one_product_beside_that_of_the_base() {
    let members = [low_rank(1), low_rank(4), low_rank(2)].map(Edits::from);
    in_all_slots(&Edits::none(), &members, &Edits::none());
    // One slot does nothing here.
    let [first, _, third] = members;
    in_all_slots(&Edits::none(), &[first, Edits::none(), third], &Edits::none());
}

#[test]
fn texts_that_are_as_long_as_each_other_stay_where_they_are() {
    let members = [low_rank(2), low_rank(2)].map(Edits::from);
    let rows = || Rows::packed(&[3, 3, 3], &device());
    for slots in [[Some(0), Some(1), None], [Some(1), None, Some(0)], [None, Some(0), Some(1)]] {
        each_as_alone(&Edits::none(), &members, &Edits::none(), rows(), &slots);
    }
}

#[test]
fn slots_with_other_forms_run_on_their_rows() {
    let scale = || Scale { output: Some(random([OUT])), ..Scale::input(random([IN])) };
    let blocks = |count: usize, size| random::<3>([count, size, size]);
    let rotate = Rotate::blocks(blocks(2, 3), Side::Input);
    let gate = gate(IN);
    let groups: [[Edits; 3]; 6] = [
        [low_rank(2).into(), scale().into(), Edit::Bias(random([OUT])).into()],
        [low_rank(1).of_columns(0..OUT).into(), low_rank(2).into(), Edits::none()],
        [rotate.into(), Edits::from(low_rank(2)).then(magnitude()), Doubled::edit()],
        [
            Edit::Weight(Arc::new(Replaced(random([IN, OUT])))).into(),
            Edits::from(low_rank(2)).then(scale()),
            low_rank(3).into(),
        ],
        [Edit::Gated(gate.clone(), low_rank(2).into()).into(), low_rank(1).into(), Edits::none()],
        [
            Edit::Gated(gate, scale().into()).into(),
            Edit::Mean(vec![(0.5, low_rank(1).into()), (0.5, scale().into())]).into(),
            Edits::from(Edit::Bias(random([OUT]))).then(low_rank(2)),
        ],
    ];
    for members in &groups {
        in_all_slots(&Edits::none(), members, &Edits::none());
    }
}

#[test]
fn slots_are_between_what_all_rows_have() {
    let members = [low_rank(1), low_rank(4), low_rank(2)].map(Edits::from);
    let scale = || Scale { output: Some(random([OUT])), ..Scale::input(random([IN])) };
    let others: [[Edits; 3]; 2] = [
        members,
        [
            scale().into(),
            Edits::from(low_rank(2)).then(magnitude()),
            Edit::Bias(random([OUT])).into(),
        ],
    ];
    for members in &others {
        in_all_slots(&low_rank(2).into(), members, &Edits::none());
        in_all_slots(&scale().into(), members, &low_rank(2).into());
        in_all_slots(&Edits::none(), members, &scale().into());
        let bias = Edits::from(Edit::Bias(random([OUT])));
        in_all_slots(&bias, members, &Doubled::edit());
    }
}

#[test]
fn a_pool_over_a_pool_is_by_the_same_slots() {
    let members = [low_rank(1), low_rank(4), low_rank(2)].map(Edits::from);
    let others = [low_rank(2), low_rank(3), low_rank(1)].map(Edits::from);
    let base = base();
    let (parts, layer) = (Parts::over(packed()).in_slots(&SLOTS[0]), layer(&base, site(&base)));
    let x: Tensor<2> = random([12, IN]);
    let apply = |edits: Edits| edits.apply(&layer, x.clone(), &parts.pass());
    let both = [0, 1, 2].map(|slot| members[slot].clone().followed_by(others[slot].clone()));
    let expected = apply(routed(&both));
    assert_close(apply(routed(&members).followed_by(routed(&others))), expected);
}

#[test]
fn dropout_of_a_slot_acts_in_training() {
    let base = base();
    let layer = layer(&base, site(&base));
    let members = [low_rank(2).with_dropout(0.5), low_rank(3)].map(Edits::from);
    let edits = routed(&members);
    let slots = [Some(1), Some(0), None, Some(0), Some(1)];
    let x: Tensor<2> = random([12, IN]);
    let rows = |step: Option<u64>, rows: &[usize]| {
        let parts = Parts::over(packed()).in_slots(&slots);
        let pass = step.map_or_else(|| parts.pass(), |step| parts.training(step));
        let y = edits.apply(&layer, x.clone(), &pass);
        crate::support::values(parts.rows.take(y, rows))
    };
    assert_eq!(rows(Some(0), &[0, 1, 2, 3, 4]), rows(Some(0), &[0, 1, 2, 3, 4]));
    assert_ne!(rows(Some(0), &[1, 3]), rows(Some(1), &[1, 3]));
    // Rows that are under others have none.
    for other in [[0], [2], [4]] {
        let differences = rows(Some(0), &other).into_iter().zip(rows(None, &other));
        assert!(differences.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn another_adapter_in_a_slot_is_not_what_was_kept_of_the_first() {
    let base = base();
    let site = site(&base);
    let member = || Fixed::linear(site, low_rank(2));
    let members: Vec<BoxedMethod> = vec![member(), member()];
    let other = member();
    let mut pool = AdapterPool::new(members.clone());
    let parts = Parts::over(packed()).in_slots(&[Some(0), Some(1), None, Some(1), Some(0)]);
    let x: Tensor<2> = random([12, IN]);
    let apply = |pool: &AdapterPool| {
        pool.linear(site, &parts.pass()).apply(&layer(&base, site), x.clone(), &parts.pass())
    };
    apply(&pool);
    pool.replace(1, other.clone());
    let fresh = AdapterPool::new(vec![members[0].clone(), other.clone()]);
    assert_close(apply(&pool), apply(&fresh));
    assert_eq!(pool.insert(member()), 2);
    assert_close(apply(&pool), apply(&fresh));
}

#[test]
#[should_panic(expected = "a batch of 5 rows, and slots for 3")]
fn every_row_names_its_slot() {
    let base = base();
    let parts = Parts::over(packed()).in_slots(&[Some(0), None, Some(0)]);
    let edits = routed(&[low_rank(2).into()]);
    edits.apply(&layer(&base, site(&base)), random([12, IN]), &parts.pass());
}
