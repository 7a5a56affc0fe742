use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use peft_kernels::{AttentionInputs, AttentionRow, AttentionSpec, Dropout, attention};

use crate::both::both;

/// The same with Burn's operations, row by row and head by head.
fn plain(inputs: &AttentionInputs, spec: &AttentionSpec) -> Tensor<2> {
    let AttentionSpec { rows, heads, key_value_heads, size, scale, dropout } = spec;
    let shared = heads / key_value_heads;
    let of_row = |(number, row): (usize, &AttentionRow)| {
        let of_head = |head: usize| {
            let kept = head / shared;
            let query = inputs.query.clone().narrow(0, row.query, row.queries);
            let query = query.narrow(1, head * size, *size);
            let all = |text: &Tensor<2>, extra: Option<&Tensor<4>>| {
                let text = text.clone().narrow(0, row.key, row.keys).narrow(1, kept * size, *size);
                let Some(extra) = extra.filter(|_| row.extra > 0) else { return text };
                let room = extra.dims()[2];
                let front = extra.clone().narrow(0, number, 1).narrow(1, kept, 1);
                let front = front.reshape([room, *size]).narrow(0, room - row.extra, row.extra);
                Tensor::cat(vec![front, text], 0)
            };
            let [extra_key, extra_value] = match &inputs.extra {
                Some([key, value]) => [Some(key), Some(value)],
                None => [None, None],
            };
            let key = all(&inputs.key, extra_key);
            let value = all(&inputs.value, extra_value);
            let keys = row.extra + row.keys;
            let device = query.device().without_autodiff();
            let hidden: Vec<f64> = (0..row.queries)
                .flat_map(|query| {
                    let seen = row.sees.map_or(keys, |first| row.extra + first + query);
                    (0..keys).map(move |key| if key < seen { 0.0 } else { -1e9 })
                })
                .collect();
            let hidden = TensorData::new(hidden, [row.queries, keys]);
            let hidden = Tensor::<2>::from_data(hidden, (&device, query.dtype()));
            let scores = query.matmul(key.transpose()) * *scale + hidden;
            let weights = softmax(scores, 1);
            let weights = match dropout {
                None => weights,
                Some(dropout) => {
                    let tokens = inputs.query.dims()[0];
                    let factors: Tensor<2> = dropout.factors([tokens * heads, keys], &device);
                    let own = (row.query..row.query + row.queries)
                        .map(|token| factors.clone().narrow(0, token * heads + head, 1));
                    weights.clone() * Tensor::cat(own.collect(), 0).cast(weights.dtype())
                }
            };
            weights.matmul(value)
        };
        Tensor::cat((0..*heads).map(of_head).collect(), 1)
    };
    Tensor::cat(rows.iter().enumerate().map(of_row).collect(), 0)
}

fn rows(lengths: &[usize], extra: &[usize], causal: bool) -> Vec<AttentionRow> {
    let mut start = 0;
    let row = |(&length, &extra): (&usize, &usize)| {
        let row = AttentionRow {
            query: start,
            queries: length,
            key: start,
            keys: length,
            extra,
            sees: causal.then_some(1),
        };
        start += length;
        row
    };
    lengths.iter().zip(extra).map(row).collect()
}

#[test]
fn attention_and_its_gradients_are_those_of_burn_in_f64() {
    let lengths = [5, 1, 70, 33];
    let tokens = lengths.iter().sum();
    for (heads, key_value_heads, size) in [(2, 2, 8), (4, 2, 6), (3, 1, 32)] {
        for (causal, front) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
            for dropout in [None, Some(Dropout::new(0.2, 9))] {
                let extra = if front == 0 { [0; 4] } else { [3, 0, 2, 1] };
                let spec = AttentionSpec {
                    rows: rows(&lengths, &extra, causal),
                    heads,
                    key_value_heads,
                    size,
                    scale: 0.3,
                    dropout,
                };
                let [width, kept] = [heads * size, key_value_heads * size];
                let mut shapes = vec![[tokens, width], [tokens, kept], [tokens, kept]];
                if front > 0 {
                    shapes.extend([[lengths.len(), front * kept]; 2]);
                }
                let what = format!("{heads}/{key_value_heads} x {size}, {causal}, {front}");
                both(&format!("{what}, {dropout:?}"), &shapes, 3e-5, |inputs| {
                    let shape = [lengths.len(), key_value_heads, front, size];
                    let extra =
                        (front > 0).then(|| [3, 4].map(|n| inputs[n].clone().reshape(shape)));
                    let [query, key, value] = [0, 1, 2].map(|n| inputs[n].clone());
                    let inputs = AttentionInputs { query, key, value, extra };
                    let fast = attention(inputs.clone(), spec.clone());
                    fast.unwrap_or_else(|| plain(&inputs, &spec))
                });
            }
        }
    }
}

#[test]
fn keys_that_no_row_has_are_not_seen() {
    let device = Device::flex();
    let values = |shape: [usize; 2], seed| {
        let values: Vec<f32> =
            crate::both::values(shape[0] * shape[1], seed).into_iter().map(|v| v as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, shape), &device)
    };
    let padded = AttentionRow { query: 0, queries: 4, key: 0, keys: 2, extra: 0, sees: None };
    let spec = AttentionSpec {
        rows: vec![padded],
        heads: 1,
        key_value_heads: 1,
        size: 4,
        scale: 1.0,
        dropout: None,
    };
    let inputs = AttentionInputs {
        query: values([4, 4], 1),
        key: values([4, 4], 2),
        value: values([4, 4], 3),
        extra: None,
    };
    let read = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().unwrap();
    let found = read(attention(inputs.clone(), spec.clone()).expect("on the CPU"));
    let expected = read(plain(&inputs, &spec));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
}
