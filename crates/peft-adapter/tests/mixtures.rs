//! AdaMix: experts that are drawn, compared and averaged.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use peft_adapter::{Bottleneck, BottleneckConfig, Mixture, Projection};
use peft_conformance::Host;
use peft_core::{
    InitContext, LossContext, Memo, Method, MethodConfig, Mode, Pass, Progress, Role, Rows, Site,
    Slots,
};
use serde_json::{Value, json};

const EXPERTS: usize = 3;

/// Of the second feed-forward network, with experts up and down that differ much.
fn adapters(host: &Host, fields: Value) -> Bottleneck {
    let mut all = json!({
        "num_experts": EXPERTS, "share_up": false, "bottleneck_size": 8, "leave_out": [0],
        "original_ln_before": false, "scaling": 9.0,
    });
    all.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
    let config: BottleneckConfig = serde_json::from_value(all).expect("it can be read");
    let device = Device::default().autodiff();
    config.init(&InitContext::new(host.model.base(), &device)).expect("it fits")
}

fn site(host: &Host) -> &Site {
    let mut sites = host.model.base().sites();
    sites.find(|s| s.role == Role::FeedForwardSublayer && s.layer == Some(1)).expect("it has two")
}

fn mixtures<'a>(adapters: &'a Bottleneck, host: &Host) -> [&'a Mixture; 2] {
    let layer = adapters.layer(site(host)).expect("it is adapted");
    [&layer.down, &layer.up].map(|projection| match projection {
        Projection::Mixture(experts) => experts,
        other => panic!("{other:?} has no experts"),
    })
}

/// What the adapter at the site adds in one pass.
fn update(adapters: &Bottleneck, host: &Host, x: &Tensor<2>, mode: Mode, memo: &Memo) -> Vec<f32> {
    let (rows, slots) = (Rows::packed(&[4, 2], &Device::default()), Slots::default());
    let pass = Pass { rows: &rows, slots: &slots, mode, memo, probe: None };
    let update = adapters.update(site(host), x.clone(), &pass).expect("it is adapted");
    update.into_data().try_into_vec().expect("floats")
}

fn states() -> Tensor<2> {
    Tensor::random([6, 24], Distribution::Normal(0.0, 1.0), &Device::default())
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_finished_adapter_is_the_mean_of_its_experts() {
    let host = Host::new(&Device::default());
    let adapters = adapters(&host, json!({}));
    let means = mixtures(&adapters, &host).map(|experts| {
        let [count, d_in, d_out] = experts.weight.val().dims();
        assert_eq!(count, EXPERTS);
        let expert = |n: usize| experts.weight.val().narrow(0, n, 1).reshape([d_in, d_out]);
        (expert(0) + expert(1) + expert(2)) / 3.0
    });
    // In evaluation during training, too.
    let (x, memo) = (states(), Memo::new());
    let during = update(&adapters.valid(), &host, &x, Mode::Infer, &memo);
    let mut finished = adapters.clone();
    finished.finish();
    let layer = finished.layer(site(&host)).expect("it is adapted");
    for (projection, mean) in [&layer.down, &layer.up].into_iter().zip(means) {
        let Projection::Dense(linear) = projection else { panic!("experts are left") };
        let tolerance = Tolerance::<f32>::absolute(1e-7);
        linear.weight.val().into_data().assert_approx_eq::<f32>(&mean.into_data(), tolerance);
    }
    let after = update(&finished.valid(), &host, &x, Mode::Infer, &Memo::new());
    assert!(distance(&during, &after) < 1e-6);
    assert!(after.iter().any(|value| value.abs() > 1e-4), "it adds something");
}

#[test]
fn a_pass_of_training_is_through_one_expert_that_seed_and_step_choose() {
    let host = Host::new(&Device::default());
    let adapters = adapters(&host, json!({})).valid();
    let (x, [down, up]) = (states(), mixtures(&adapters, &host));
    let through = |d: usize, u: usize| -> Vec<f32> {
        let weight = |experts: &Mixture, n: usize| -> Tensor<2> {
            experts.weight.val().narrow(0, n, 1).squeeze_dim(0)
        };
        let inner = burn::tensor::activation::relu(x.clone().matmul(weight(down, d)));
        (inner.matmul(weight(up, u)) * 9.0).into_data().try_into_vec().expect("floats")
    };
    let all: Vec<Vec<f32>> =
        (0..EXPERTS * EXPERTS).map(|n| through(n / EXPERTS, n % EXPERTS)).collect();
    let mut seen = vec![0; all.len()];
    for step in 0..90 {
        let memo = Memo::new();
        let mode = Mode::Train { seed: 5, step };
        // The second pass of a step draws anew.
        let passes = [(); 2].map(|()| update(&adapters, &host, &x, mode, &memo));
        let again = update(&adapters, &host, &x, mode, &Memo::new());
        assert_eq!(passes[0], again, "the choice is a function of seed and step");
        for pass in &passes {
            let chosen = all.iter().position(|expected| distance(pass, expected) < 1e-6);
            seen[chosen.expect("it is through one expert down and one up")] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times > 5), "of 180 passes, through each pair: {seen:?}");
}

#[test]
fn the_loss_is_the_divergence_of_two_passes() {
    let host = Host::new(&Device::default());
    let value = |adapters: &Bottleneck, first: [[f32; 2]; 2], second: [[f32; 2]; 2]| {
        let tensor = |rows| Tensor::<2>::from_data(rows, &Device::default());
        let context = LossContext {
            progress: Progress { step: 0, total: 1 },
            logits: &|| tensor(first),
            again: &|| Ok(tensor(second)),
        };
        let loss = adapters.loss(&context).expect("no pass fails");
        loss.map(|loss| loss.into_scalar::<f32>())
    };
    let (first, second) = ([[0.0, 0.0], [1.0, 3.0]], [[2.0, 0.0], [1.0, 3.0]]);
    let weighted = adapters(&host, json!({ "consistency_weight": 0.5 }));
    // Of the first target p = (1/2, 1/2) and q = σ(±2); the second's passes agree.
    let q = 1.0f32 / (1.0 + (-2.0f32).exp());
    let kl = |p: [f32; 2], q: [f32; 2]| p[0] * (p[0] / q[0]).ln() + p[1] * (p[1] / q[1]).ln();
    let (p, q) = ([0.5, 0.5], [q, 1.0 - q]);
    let expected = 0.5 * 0.5 * (kl(p, q) + kl(q, p)) / 2.0;
    let found = value(&weighted, first, second).expect("there are experts");
    assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
    assert_eq!(value(&weighted, first, first).map(|loss| loss.abs() < 1e-7), Some(true));
    // Without the term there is no second pass.
    assert!(value(&adapters(&host, json!({ "consistency_weight": 0 })), first, second).is_none());
    let mut finished = weighted;
    finished.finish();
    assert!(value(&finished, first, second).is_none());
}

#[test]
fn evaluation_in_training_is_that_of_the_finished_adapter() {
    let host = Host::new(&Device::default());
    let adapters = adapters(&host, json!({ "leave_out": [] }));
    let mut finished = adapters.clone();
    finished.finish();
    let [during, after] = [adapters, finished].map(|method| host.logits(&method.valid()));
    assert!(distance(&during, &after) < 1e-5);
    assert!(distance(&after, &host.logits(&())) > 1e-3);
}
