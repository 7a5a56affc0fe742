//! The same training step with what Burn itself has: its encoder, and `apply_lora`.

use std::time::{Instant, SystemTime};

use anyhow::{Result, anyhow, ensure};
use burn::module::{Lora, Module, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use serde_json::{Value, json};

use super::Order;

/// An encoder under a classifier.
#[derive(Module, Debug)]
struct Classifier {
    encoder: TransformerEncoder,
    head: Linear,
}

/// The seconds of each step. The encoder is given what comes of the embeddings, which are frozen; its
/// size is that of `sizes`: layers, width, inner width, heads. Gradients are not clipped, as Burn
/// clips each by itself.
pub fn measure(order: &Order) -> Result<Value> {
    let [layers, width, inner, heads] = order.sizes;
    ensure!(heads > 0, "sizes: layers, width, inner width, heads");
    let device = Device::default();
    let on = device.clone().autodiff();
    let encoder = TransformerEncoderConfig::new(width, inner, heads, layers).init(&on);
    let adapted = ParamGroup::from_regex(r"\.(query|value)\.weight$");
    let adapted = adapted.map_err(|error| anyhow!("{error:?}"))?;
    let encoder = encoder.apply_lora(Lora::new(8, 16.0).set_param_group(adapted));
    let mut model = Classifier { encoder, head: LinearConfig::new(width, 2).init(&on) };
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.01).init();
    let loss_of = CrossEntropyLossConfig::new().init(&on);
    let shape = [order.rows, order.tokens, width];
    let classes = Tensor::<1, Int>::arange(0..order.rows as i64, &on).remainder_scalar(2);
    let (mut seconds, mut first_step_at) = (Vec::new(), 0.0);
    for step in 0..order.steps {
        let embedded = Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &on);
        let start = Instant::now();
        let hidden = model.encoder.forward(TransformerEncoderInput::new(embedded));
        let first = hidden.narrow(1, 0, 1).reshape([order.rows, width]);
        let loss = loss_of.forward(model.head.forward(first), classes.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
        loss.into_scalar::<f32>();
        seconds.push(start.elapsed().as_secs_f64());
        if step == 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            first_step_at = now.unwrap_or_default().as_secs_f64();
        }
    }
    Ok(json!({"seconds": seconds, "first_step_at": first_step_at}))
}
