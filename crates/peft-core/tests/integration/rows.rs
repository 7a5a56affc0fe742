//! Which tokens belong to which text.

use burn::tensor::{Int, Tensor};
use peft_core::{Row, Rows, Words};

use crate::support::{assert_close, device, random, values};

fn packed(lengths: &[usize]) -> Rows {
    Rows::packed(lengths, &device())
}

/// Rows of four places, the last of which have no token.
fn padded(lengths: &[usize]) -> Rows {
    let row = |&length: &usize| {
        let mask = (length < 4).then(|| (0..4).map(|place| place < length).collect());
        Row { mask, ..Row::new(4) }
    };
    Rows::new(lengths.iter().map(row).collect(), &device())
}

/// `[tokens, 1]`: 0, 1, 2, ...
fn numbered(rows: &Rows) -> Tensor<2> {
    let tokens = rows.tokens() as i64;
    Tensor::<1, Int>::arange(0..tokens, &device()).float().reshape([tokens as usize, 1])
}

#[test]
fn packed_rows_lie_one_after_another() {
    let rows = packed(&[3, 1, 2]);
    assert_eq!((rows.len(), rows.tokens(), rows.longest()), (3, 6, 3));
    assert_eq!((rows.start(0), rows.start(2), rows.start(3)), (0, 4, 6));
    assert_eq!(rows.positions(), [0, 1, 2, 0, 0, 1]);
    assert_eq!(rows.row_of_each(), [0, 0, 0, 1, 2, 2]);
    assert!(!rows.continue_earlier());
    let tokens: Vec<usize> = rows.iter().map(Row::tokens).collect();
    assert_eq!(tokens, [3, 1, 2]);
}

#[test]
fn padded_rows_are_as_long_as_the_longest() {
    let rows = padded(&[4, 2]);
    assert_eq!((rows.tokens(), rows.longest()), (8, 4));
    let tokens: Vec<usize> = rows.iter().map(Row::tokens).collect();
    assert_eq!(tokens, [4, 2]);
    assert_eq!(rows.row_of_each(), [0, 0, 0, 0, 1, 1, 1, 1]);
    let mask = rows.mask().expect("there is padding").int();
    assert_eq!(values(mask.float()), [1., 1., 1., 1., 1., 1., 0., 0.]);
}

#[test]
fn shifts_and_earlier_tokens_count() {
    let later = Row { positions: vec![5], past: 5, shift: 2, ..Row::new(1) };
    let rows = Rows::new(vec![Row { shift: 3, ..Row::new(2) }, later], &device());
    assert_eq!(rows.positions(), [3, 4, 7]);
    assert!(rows.continue_earlier());
}

#[test]
fn a_batch_and_back_are_the_same_tokens() {
    for rows in [packed(&[3, 1, 2]), packed(&[2, 2]), padded(&[4, 2, 3]), packed(&[1])] {
        let x = random::<2>([rows.tokens(), 3]);
        let batch = rows.batched(x.clone());
        assert_eq!(batch.dims(), [rows.len(), rows.longest(), 3]);
        assert_close(rows.joined(batch.clone()), x.clone());
        for (number, row) in rows.iter().enumerate() {
            let of_row = batch.clone().narrow(0, number, 1).narrow(1, 0, row.len());
            assert_close(of_row.squeeze_dim(0), rows.take(x.clone(), &[number]));
        }
        // What lies behind a row is finite, whatever it is.
        assert!(values(batch).iter().all(|value| value.is_finite()));
    }
}

#[test]
fn there_is_a_mask_where_rows_have_different_lengths() {
    assert!(packed(&[2, 2]).mask().is_none() && padded(&[4, 4]).mask().is_none());
    let mask = packed(&[3, 1]).mask().expect("one is shorter").int();
    assert_eq!(values(mask.float()), [1., 1., 1., 1., 0., 0.]);
}

#[test]
fn a_mean_is_over_all_places_of_a_row() {
    let rows = packed(&[3, 1, 2]);
    assert_eq!(values(rows.mean(numbered(&rows))), [1.0, 3.0, 4.5]);
    let rows = padded(&[4, 2]);
    assert_eq!(values(rows.mean(numbered(&rows))), [1.5, 5.5]);
    let x = random::<2>([6, 3]);
    let rows = packed(&[3, 1, 2]);
    for number in 0..3 {
        let expected = rows.take(x.clone(), &[number]).mean_dim(0);
        assert_close(rows.mean(x.clone()).narrow(0, number, 1), expected);
    }
}

#[test]
fn values_of_rows_are_spread_over_their_tokens() {
    let of_rows = || Tensor::<2>::from_data([[10f32], [20.0], [30.0]], &device());
    assert_eq!(values(packed(&[3, 1, 2]).spread(of_rows())), [10., 10., 10., 20., 30., 30.]);
    assert_eq!(values(packed(&[2, 2, 2]).spread(of_rows())), [10., 10., 20., 20., 30., 30.]);
    let padded = padded(&[4, 1, 2]).spread(of_rows());
    assert_eq!(values(padded), [10., 10., 10., 10., 20., 20., 20., 20., 30., 30., 30., 30.]);
}

#[test]
fn gradients_of_a_mean_and_of_a_spread_are_those_of_sums() {
    let autodiff = device().autodiff();
    for rows in [packed(&[3, 1, 2]), packed(&[2, 2])] {
        let data = random::<2>([rows.tokens(), 2]).into_data();
        let x = Tensor::<2>::from_data(data, &autodiff).require_grad();
        let gradients = rows.spread(rows.mean(x.clone())).sum().backward();
        // Each token's share of the mean goes back to as many tokens.
        let found = values(x.grad(&gradients).expect("a gradient"));
        assert!(found.iter().all(|g| (g - 1.0).abs() < 1e-6), "{found:?}");
    }
}

#[test]
fn some_rows_are_taken_with_their_tokens() {
    let rows = packed(&[3, 1, 2]);
    let x = numbered(&rows);
    let cases: [(&[usize], &[f32]); 5] = [
        (&[0, 1, 2], &[0., 1., 2., 3., 4., 5.]),
        (&[1, 2], &[3., 4., 5.]),
        (&[2, 0], &[4., 5., 0., 1., 2.]),
        (&[1, 1], &[3., 3.]),
        (&[0, 2], &[0., 1., 2., 4., 5.]),
    ];
    for (chosen, expected) in cases {
        assert_eq!(values(rows.take(x.clone(), chosen)), expected, "{chosen:?}");
        let subset = rows.subset(chosen);
        assert_eq!((subset.len(), subset.tokens()), (chosen.len(), expected.len()));
        let lengths: Vec<usize> = chosen.iter().map(|&row| [3, 1, 2][row]).collect();
        assert!(subset.iter().map(Row::len).eq(lengths));
    }
}

#[test]
fn no_rows_have_no_tokens() {
    let rows = packed(&[]);
    assert!(rows.is_empty());
    assert_eq!((rows.tokens(), rows.longest()), (0, 0));
    let single = packed(&[2, 1]).single(&[0, 2, 1]);
    assert_eq!((single.len(), single.tokens(), single.positions()), (3, 3, vec![0, 0, 0]));
}

#[test]
fn a_token_alone_is_still_one_of_its_text() {
    // The second text goes on from two tokens, behind a virtual one.
    let words = |indices: &[usize], before| Words { indices: indices.into(), before };
    let first = Row { words: words(&[7, 11, 7], 0), ..Row::new(3) };
    let second = words(&[7, 11, 5, 7, 11], 2);
    assert_eq!(
        (second.last(&[7, 11]), second.last(&[5, 5]), second.last(&[5])),
        (Some(3), None, Some(2))
    );
    let second = Row { words: second, text: vec![1, 2, 3], ..Row::new(4) };
    assert_eq!(second.has_text_from(3), [false, false, true, true]);
    let rows = Rows::new(vec![first, second], &device());
    let single = rows.single(&[2, 3, 5]);
    let of_text: Vec<bool> = single.iter().flat_map(|row| row.has_text_from(2)).collect();
    assert_eq!(of_text, [true, false, true]);
    let of_text: Vec<bool> = single.iter().flat_map(|row| row.has_text_from(3)).collect();
    assert_eq!(of_text, [false, false, true]);
    assert_eq!(single.iter().map(|row| row.words.before).collect::<Vec<_>>(), [2, 0, 3]);
}
