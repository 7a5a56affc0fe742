//! SparseAdapter: which weights are left, and that the others stay zero.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use peft_adapter::{Bottleneck, SparseAdapterConfig};
use peft_conformance::Host;
use peft_core::{
    Calibration, Exchange, InitContext, Method, MethodConfig, TensorMap, num_trainable,
};
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const WIDTH: usize = 8;
const LAYERS: usize = 2;
/// The weights of both projections of all adapters.
const WEIGHTS: usize = LAYERS * 2 * HIDDEN * WIDTH;

fn config(fields: Value) -> SparseAdapterConfig {
    let mut all = json!({ "bottleneck_size": WIDTH, "sparsity": 0.75, "scaling": 9.0 });
    all.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
    serde_json::from_value(all).expect("it can be read")
}

fn made(host: &Host, config: &SparseAdapterConfig) -> Bottleneck {
    let (device, batches) = (Device::default().autodiff(), host.calibration());
    let context = InitContext::new(host.model.base(), &device).with_seed(4);
    config.init(&context.with_calibration(&batches)).expect("it fits")
}

fn places(adapters: &Bottleneck) -> Vec<i64> {
    let survivors = adapters.survivors().expect("it is pruned");
    survivors.places.val().into_data().iter::<i64>().collect()
}

/// The dense adapters of the same start.
fn dense(host: &Host, config: &SparseAdapterConfig) -> (Bottleneck, Vec<f32>) {
    let device = Device::default().autodiff();
    let context = InitContext::new(host.model.base(), &device).with_seed(4);
    let adapters = config.adapter.init(&context).expect("it fits");
    let weights = flat(&adapters, host)
        .into_iter()
        .flat_map(|weight| weight.into_data().iter::<f32>().collect::<Vec<_>>());
    let weights = weights.collect();
    (adapters, weights)
}

/// The weights, down and up, one adapter after another.
fn flat(adapters: &Bottleneck, host: &Host) -> Vec<Tensor<2>> {
    let layers = host.model.base().sites().filter_map(|site| adapters.layer(site));
    let weights =
        layers.flat_map(|layer| [&layer.down, &layer.up]).map(|projection| match projection {
            peft_adapter::Projection::Dense(linear) => linear.weight.val(),
            other => panic!("{other:?} is not dense"),
        });
    weights.collect()
}

/// The places of the largest scores.
fn largest(scores: &[f32], count: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(count);
    order.sort_unstable();
    order.into_iter().map(|place| place as i64).collect()
}

#[test]
fn a_quarter_of_the_weights_is_left_and_trained() {
    let host = Host::new(&Device::default());
    for pruning in ["random", "magnitude", "er", "snip", "grasp"] {
        let config = config(json!({ "pruning": pruning }));
        let adapters = made(&host, &config);
        let places = places(&adapters);
        assert_eq!(places.len(), WEIGHTS / 4, "{pruning}");
        assert!(places.is_sorted_by(|a, b| a < b), "{pruning}");
        assert!(places.iter().all(|place| (0..WEIGHTS as i64).contains(place)), "{pruning}");
        let biases = LAYERS * (WIDTH + HIDDEN);
        assert_eq!(num_trainable(&adapters), WEIGHTS / 4 + biases, "{pruning}");
    }
}

#[test]
fn the_largest_weights_are_left_by_magnitude() {
    let host = Host::new(&Device::default());
    let config = config(json!({ "pruning": "magnitude" }));
    let (_, weights) = dense(&host, &config);
    let sizes: Vec<f32> = weights.iter().map(|weight| weight.abs()).collect();
    let adapters = made(&host, &config);
    assert_eq!(places(&adapters), largest(&sizes, WEIGHTS / 4));
    let values = adapters.survivors().expect("it is pruned").values.val().into_data();
    let expected = places(&adapters).into_iter().map(|place| weights[place as usize]);
    assert_eq!(values.iter::<f32>().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn weights_on_which_the_loss_depends_are_left_by_snip() {
    let host = Host::new(&Device::default());
    let config = config(json!({ "pruning": "snip", "calibration_batches": 2 }));
    let (adapters, weights) = dense(&host, &config);
    let batches = host.calibration();
    let count = batches.len().min(2);
    let mut gradient = vec![0.0f32; weights.len()];
    for batch in 0..count {
        let gradients = batches.loss(batch, &adapters).expect("it fits").backward();
        let own = flat(&adapters, &host).into_iter().flat_map(|weight| {
            let gradient = weight.grad(&gradients).expect("it is trained");
            gradient.into_data().iter::<f32>().collect::<Vec<_>>()
        });
        gradient.iter_mut().zip(own).for_each(|(sum, g)| *sum += g / count as f32);
    }
    let scores: Vec<f32> = gradient.iter().zip(&weights).map(|(g, w)| (g * w).abs()).collect();
    let (found, expected) = (places(&made(&host, &config)), largest(&scores, WEIGHTS / 4));
    let both = found.iter().filter(|place| expected.contains(place)).count();
    // Sums in another order may swap two that are equal to seven digits.
    assert!(both + 2 >= expected.len(), "{both} of {}", expected.len());
}

#[test]
fn weights_with_which_the_gradient_grows_are_left_by_grasp() {
    let host = Host::new(&Device::default());
    let config =
        config(json!({ "pruning": "grasp", "calibration_batches": 1, "non_linearity": "gelu" }));
    let (adapters, weights) = dense(&host, &config);
    let batches = host.calibration();
    let norm = |adapters: &Bottleneck| -> f64 {
        let gradients = batches.loss(0, adapters).expect("it fits").backward();
        let squares = flat(adapters, &host).into_iter().map(|weight| {
            let gradient = weight.grad(&gradients).expect("it is trained");
            gradient.into_data().iter::<f32>().map(|g| f64::from(g).powi(2)).sum::<f64>()
        });
        squares.sum()
    };
    // d (g · g) / dw = 2 H g: how the norm changes with the scale of the weights that are left and of those
    // that are not tells `w (H g)` of both together.
    let left = places(&made(&host, &config));
    let slope = |of_left: bool| {
        let at = |step: f32| {
            let factor = |place: usize| match left.contains(&(place as i64)) == of_left {
                true => 1.0 + step,
                false => 1.0,
            };
            let scaled: Vec<f32> =
                weights.iter().enumerate().map(|(n, weight)| weight * factor(n)).collect();
            norm(&with_weights(&adapters, &scaled))
        };
        (at(0.01) - at(-0.01)) / 0.02
    };
    let (of_left, of_pruned) = (slope(true), slope(false));
    assert!(of_left > of_pruned, "left {of_left:e}, pruned {of_pruned:e}");
    assert!(of_left > 0.0, "what is left makes the gradient grow: {of_left:e}");
}

/// The same adapters with other weights.
fn with_weights(adapters: &Bottleneck, weights: &[f32]) -> Bottleneck {
    struct Set<'w>(&'w [f32]);
    impl burn::module::ModuleMapper for Set<'_> {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            if D != 2 {
                return param;
            }
            let shape: [usize; D] = param.lazy_shape().dims();
            let count = shape.iter().product();
            let (own, rest) = self.0.split_at(count);
            self.0 = rest;
            param.map(|tensor| {
                let values = burn::tensor::TensorData::new(own.to_vec(), shape);
                Tensor::from_data(values, &tensor.device()).require_grad()
            })
        }
    }
    adapters.clone().map(&mut Set(weights))
}

#[test]
fn wherever_the_adapters_are_some_of_their_weights_are_left() {
    let host = Host::new(&Device::default());
    let houlsby = json!({ "mh_adapter": true, "original_ln_before": false });
    let parallel = json!({ "is_parallel": true, "original_ln_before": false, "pruning": "er",
                           "init_weights": "mam_adapter" });
    for (fields, adapters) in [(houlsby, 2 * LAYERS), (parallel, LAYERS)] {
        let made = made(&host, &config(fields));
        assert_eq!(places(&made).len(), adapters * 2 * HIDDEN * WIDTH / 4);
        let changed = host.logits(&made.valid());
        assert_eq!(changed.len(), host.logits(&()).len());
    }
}

#[test]
fn a_file_holds_what_is_left_and_gives_it_back_bit_for_bit() {
    let host = Host::new(&Device::default());
    let config = config(json!({}));
    let mut trained = made(&host, &config);
    let mut file = TensorMap::new();
    trained.exchange(&mut Exchange::write(&mut file), host.model.base());
    let numbers = |data: &burn::tensor::TensorData| data.shape().num_elements();
    let all: usize = file.values().map(numbers).sum();
    assert_eq!(all, 2 * WEIGHTS / 4 + LAYERS * (WIDTH + HIDDEN));

    let device = Device::default().autodiff();
    let mut read = config
        .init(&InitContext::new(host.model.base(), &device).read())
        .expect("nothing is looked at");
    let mut exchange = Exchange::read(&mut file);
    read.exchange(&mut exchange, host.model.base());
    assert_eq!(exchange.into_problems(), []);
    assert_eq!(places(&read), places(&trained));
    assert_eq!(host.logits(&read.valid()), host.logits(&trained.valid()));
}

#[test]
fn places_in_any_order_are_the_same_weights() {
    let host = Host::new(&Device::default());
    let config = config(json!({}));
    let mut first = made(&host, &config);
    let mut file = TensorMap::new();
    first.exchange(&mut Exchange::write(&mut file), host.model.base());
    for name in ["values", "places"] {
        let key = format!("base_model.model.sparse_adapter.{name}");
        let data = file.get_mut(&key).expect("it is there");
        let shape = data.shape().to_vec();
        *data = match name {
            "values" => {
                let turned: Vec<f32> =
                    data.iter::<f32>().collect::<Vec<_>>().into_iter().rev().collect();
                burn::tensor::TensorData::new(turned, shape)
            }
            _ => {
                let turned: Vec<i32> =
                    data.iter::<i32>().collect::<Vec<_>>().into_iter().rev().collect();
                burn::tensor::TensorData::new(turned, shape)
            }
        };
    }
    let expected = host.logits(&first.valid());
    first.exchange(&mut Exchange::read(&mut file), host.model.base());
    assert_eq!(host.logits(&first.valid()), expected);
}

#[test]
fn without_data_the_largest_are_left() {
    let host = Host::new(&Device::default());
    let device = Device::default().autodiff();
    let context = InitContext::new(host.model.base(), &device).with_seed(4);
    let blind = config(json!({ "pruning": "snip" })).init(&context).expect("it fits");
    let largest = made(&host, &config(json!({ "pruning": "magnitude" })));
    assert_eq!(places(&blind), places(&largest));
}
