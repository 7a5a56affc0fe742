use burn::tensor::Tensor;
use peft_kernels::{Segment, segmented};

use crate::both::both;

fn segments(lengths: &[(usize, Option<usize>)]) -> Vec<Segment> {
    let mut start = 0;
    let of = |&(length, factors): &(usize, Option<usize>)| {
        start += length;
        Segment { rows: start - length..start, factors }
    };
    lengths.iter().map(of).collect()
}

/// By Burn's operations, segment by segment.
fn expected(
    y: &Tensor<2>,
    x: &Tensor<2>,
    [a, b]: [&Tensor<3>; 2],
    segments: &[Segment],
) -> Tensor<2> {
    let of = |Segment { rows, factors }: &Segment| {
        let part = |tensor: &Tensor<2>| tensor.clone().narrow(0, rows.start, rows.len());
        let one = |all: &Tensor<3>, number| all.clone().narrow(0, number, 1).squeeze_dim::<2>(0);
        match *factors {
            Some(number) => part(y) + part(x).matmul(one(a, number)).matmul(one(b, number)),
            None => part(y),
        }
    };
    let parts = segments.iter().filter(|segment| !segment.rows.is_empty()).map(of);
    Tensor::cat(parts.collect(), 0)
}

#[test]
fn each_segment_has_the_product_of_its_factors_and_so_have_gradients() {
    // Long and short ones, an empty one, factors of several segments, of none, and rows without.
    let ragged = [
        (70, Some(2)),
        (1, Some(0)),
        (9, None),
        (0, Some(1)),
        (300, Some(0)),
        (5, Some(2)),
        (3, Some(1)),
    ];
    for (count, lengths) in [(5, &ragged[..]), (1, &[(40, Some(0))])] {
        for [d_in, rank, d_out] in [[24, 8, 50], [33, 3, 16], [7, 1, 5]] {
            let segments = segments(lengths);
            let rows = lengths.iter().map(|(length, _)| length).sum();
            let shapes = [[rows, d_out], [rows, d_in], [count * d_in, rank], [count * rank, d_out]];
            both(&format!("{d_in}, {rank}, {d_out}"), &shapes, 2e-5, |inputs| {
                let [y, x] = [&inputs[0], &inputs[1]];
                let a = inputs[2].clone().reshape([count, d_in, rank]);
                let b = inputs[3].clone().reshape([count, rank, d_out]);
                let found = segmented(y, x, [&a, &b], &segments);
                assert_eq!(found.is_some(), y.dtype() == burn::tensor::DType::F32);
                found.unwrap_or_else(|| expected(y, x, [&a, &b], &segments))
            });
        }
    }
}
