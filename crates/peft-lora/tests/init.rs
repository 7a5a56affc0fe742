//! How the factors start where they start from a weight, or from one another.

use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Base, Edits, EmptyPass, Hooks, InitContext, LinearLayer, MethodConfig, Role};
use peft_lora::{LoftqConfig, LoraConfig, LoraInit};
use serde_json::json;

fn largest(tensor: Tensor<2>) -> f32 {
    tensor.abs().max().into_scalar()
}

fn random(shape: [usize; 2]) -> Tensor<2> {
    Tensor::random(shape, Distribution::Normal(0.1, 0.5), &Device::default())
}

/// The factors of a new LoRA at a layer with this weight.
fn factors(init: LoraInit, rank: usize, alpha: f64, weight: &Tensor<2>) -> [Tensor<2>; 2] {
    let device = Device::default();
    let mut base = Base::new(&device);
    base.linear("layer.query", Role::Query, Some(0), weight.clone(), None);
    let config = LoraConfig { rank, alpha, init, ..LoraConfig::default() };
    let lora = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let site = base.sites().next().expect("a layer");
    let layer = lora.layer(site).expect("it is adapted");
    [&layer.lora_a, &layer.lora_b]
        .map(|factor| Tensor::from_data(factor.val().into_data(), &device))
}

#[test]
fn orthogonal_factors_have_no_product() {
    let [a, b] = factors(LoraInit::Orthogonal, 4, 3.0, &random([9, 7]));
    assert!(largest(a.clone()) > 0.05 && largest(b.clone()) > 0.05);
    assert!(largest(a.matmul(b)) < 1e-5);
}

#[test]
fn factors_of_a_qr_decomposition_are_part_of_the_weight() {
    for shape in [[12, 20], [20, 12]] {
        let weight = random(shape);
        let product = |rank: usize| {
            let [a, b] = factors(LoraInit::Olora, rank, 3.0, &weight);
            a.matmul(b)
        };
        // All of it is the weight, and a part has what the first columns of the transpose have.
        assert!(largest(product(12) - weight.clone()) < 1e-4);
        let rest = (weight.clone() - product(3)).narrow(0, 0, 3);
        assert!(largest(rest) < 1e-4, "the first columns are in the first factors");
    }
}

/// `W = s A B + R` is the best approximation of its rank exactly if `R` is orthogonal to the factors on
/// both sides, and no singular value of `R` exceeds one of `s A B`.
#[test]
fn principal_factors_are_the_best_of_their_rank() {
    let (rank, alpha) = (3, 7.0);
    let scaling = alpha / rank as f64;
    for shape in [[24, 40], [40, 24]] {
        let weight = random(shape);
        let [a, b] = factors(LoraInit::Pissa, rank, alpha, &weight);
        assert_eq!((a.dims(), b.dims()), ([shape[0], rank], [rank, shape[1]]));
        let rest = weight - a.clone().matmul(b.clone()) * scaling;
        assert!(largest(a.clone().transpose().matmul(rest.clone())) < 1e-4);
        assert!(largest(rest.clone().matmul(b.clone().transpose())) < 1e-4);

        // Each factor has half of each singular value, largest first.
        let (left, right) = (a.clone().transpose().matmul(a), b.clone().matmul(b.transpose()));
        assert!(largest(left.clone() - right) < 1e-4);
        let kept = left.into_data().try_into_vec::<f32>().expect("floats");
        let kept: Vec<f32> = (0..rank).map(|i| kept[i * rank + i] * scaling as f32).collect();
        assert!(kept.is_sorted_by(|a, b| a >= b), "{kept:?}");

        // The largest singular value of what is left, by power iteration.
        let mut vector = Tensor::<2>::ones([shape[1], 1], &Device::default());
        for _ in 0..500 {
            let next = rest.clone().transpose().matmul(rest.clone().matmul(vector));
            vector = next.clone() / next.square().sum().sqrt().unsqueeze();
        }
        let left_out: f32 = rest.matmul(vector).square().sum().sqrt().into_scalar();
        assert!(left_out > 0.1 && left_out <= kept[rank - 1], "{left_out} and {kept:?}");
    }
}

/// More iterations fit rounded weight and factors to each other better, and eight bits better than
/// four; the layer is never further from the base than the rounded weight alone.
#[test]
fn what_rounding_takes_is_in_the_factors() {
    let weight = random([70, 40]);
    let error = |bits: usize, steps: usize| {
        let device = Device::default();
        let mut base = Base::new(&device);
        base.linear("layer.query", Role::Query, Some(0), weight.clone(), None);
        let loftq_config = Some(LoftqConfig { loftq_bits: bits, loftq_iter: steps });
        let config = LoraConfig {
            rank: 6,
            alpha: 9.0,
            init: LoraInit::Loftq,
            loftq_config,
            ..LoraConfig::default()
        };
        let lora = config.init(&InitContext::new(&base, &device)).expect("it fits");
        let site = base.sites().next().expect("a layer");
        let parts = EmptyPass::new(&device);
        let edits = lora.linear(site, &parts.pass());
        let frozen = base.weight(site);
        let dense = |edits: &Edits| {
            let dense = edits.dense(&LinearLayer::new(site, frozen, None)).0;
            Tensor::<2>::from_data(dense.into_data(), &device)
        };
        let apart = |dense: Tensor<2>| -> f32 {
            (dense - weight.clone()).square().sum().sqrt().into_scalar()
        };
        let rounded: Edits = edits.iter().take(1).cloned().collect();
        [apart(dense(&rounded)), apart(dense(&edits))]
    };
    let [alone, once] = error(4, 1);
    assert!(once > 0.0 && once < 0.9 * alone, "{once} and {alone} without factors");
    let [_, often] = error(4, 5);
    assert!(often < once, "{often} after five steps, {once} after one");
    let [_, finer] = error(8, 1);
    assert!(finer < 0.2 * once, "{finer} in eight bits, {once} in four");
}

#[test]
fn starts_that_make_no_sense_are_refused_by_field() {
    let with = |fields: serde_json::Value| {
        let serde_json::Value::Object(fields) = fields else { panic!("an object") };
        peft_core::configure::<LoraConfig>(fields).expect_err("it is wrong").to_string()
    };
    for (fields, named) in [
        (json!({"eva_config": {"rho": 0.5}}), "eva_config.rho"),
        (json!({"eva_config": {"tau": 2.0}}), "eva_config.tau"),
        (json!({"eva_config": {"rhoo": 2.0}}), "rhoo"),
        (json!({"corda_config": {"corda_method": "xpm"}}), "xpm"),
        (json!({"lora_ga_config": {"stable_gamma": 0}}), "lora_ga_config.stable_gamma"),
        (json!({"lora_ga_config": {"direction": "A"}}), "direction"),
        (json!({"loftq_config": {"loftq_bits": 2}}), "loftq_config.loftq_bits"),
        (json!({"loftq_config": {"loftq_iter": 0}}), "loftq_config.loftq_iter"),
        (json!({"init_lora_weights": "loftq", "use_dora": true}), "use_dora"),
        (json!({"init_lora_weights": "mica"}), "mica"),
    ] {
        let error = with(fields);
        assert!(error.contains(named) || named == "direction", "{error:?} does not name {named}");
    }
}
