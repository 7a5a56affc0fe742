use burn::tensor::{Device, Int, Tensor, TensorData, activation::softmax};
use peft_kernels::{AttentionInputs, AttentionRow, AttentionSpec, Buckets, Dropout, attention};

use crate::both::both;

/// The same with Burn's operations, row by row and head by head.
fn plain(inputs: &AttentionInputs, spec: &AttentionSpec) -> Tensor<2> {
    let AttentionSpec { rows, heads, key_value_heads, size, scale, dropout, buckets } = spec;
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
            let mut scores = query.matmul(key.transpose()) * *scale + hidden;
            if let (Some(bias), Some(buckets)) = (&inputs.bias, buckets) {
                let of = |query: usize| {
                    let first = buckets.zero - row.position - query;
                    buckets.of_distances[first..first + keys].iter().map(|bucket| *bucket as i64)
                };
                let found: Vec<i64> = (0..row.queries).flat_map(of).collect();
                let found = TensorData::new(found, [row.queries * keys]);
                let found = Tensor::<1, Int>::from_data(found, &device);
                let biases = bias.clone().narrow(1, head, 1).select(0, found);
                scores = scores + biases.reshape([row.queries, keys]);
            }
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
            position: 2 * extra,
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
        for (causal, front, biased) in [
            (false, 0, false),
            (true, 0, false),
            (false, 3, false),
            (true, 3, false),
            (false, 0, true),
            (true, 3, true),
        ] {
            // Distances up to where the last query of the longest row is from the first key, and
            // back; the farther ones share a bucket.
            let buckets = biased.then(|| Buckets {
                of_distances: (-80..80i64).map(|d| (d.clamp(-9, 9) + 9) as usize).collect(),
                zero: 80,
            });
            for dropout in [None, Some(Dropout::new(0.2, 9))] {
                let extra = if front == 0 { [0; 4] } else { [3, 0, 2, 1] };
                let spec = AttentionSpec {
                    rows: rows(&lengths, &extra, causal),
                    heads,
                    key_value_heads,
                    size,
                    scale: 0.3,
                    dropout,
                    buckets: buckets.clone(),
                };
                let [width, kept] = [heads * size, key_value_heads * size];
                let mut shapes = vec![[tokens, width], [tokens, kept], [tokens, kept]];
                if front > 0 {
                    shapes.extend([[lengths.len(), front * kept]; 2]);
                }
                if biased {
                    shapes.push([19, heads]);
                }
                let what =
                    format!("{heads}/{key_value_heads} x {size}, {causal}, {front}, {biased}");
                both(&format!("{what}, {dropout:?}"), &shapes, 3e-5, |inputs| {
                    let shape = [lengths.len(), key_value_heads, front, size];
                    let extra =
                        (front > 0).then(|| [3, 4].map(|n| inputs[n].clone().reshape(shape)));
                    let [query, key, value] = [0, 1, 2].map(|n| inputs[n].clone());
                    let bias = biased.then(|| inputs[inputs.len() - 1].clone());
                    let inputs = AttentionInputs { query, key, value, extra, bias };
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
    let padded =
        AttentionRow { query: 0, queries: 4, key: 0, keys: 2, extra: 0, sees: None, position: 0 };
    let spec = AttentionSpec {
        rows: vec![padded],
        heads: 1,
        key_value_heads: 1,
        size: 4,
        scale: 1.0,
        dropout: None,
        buckets: None,
    };
    let inputs = AttentionInputs {
        query: values([4, 4], 1),
        key: values([4, 4], 2),
        value: values([4, 4], 3),
        extra: None,
        bias: None,
    };
    let read = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().unwrap();
    let found = read(attention(inputs.clone(), spec.clone()).expect("on the CPU"));
    let expected = read(plain(&inputs, &spec));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
}
