//! How fast matrix products are, by shape: Burn's own, and with a weight that is laid out before.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::{Device, Distribution, Tensor};
use peft::core::PackedWeight;
use serde_json::{Map, Value, json};

use super::Order;

/// For each shape `[tokens, d_in] x [d_in, d_out]`: GFLOP/s at best, of as many rounds as there are
/// steps, with either; a weight that is laid out is of the order's type.
pub fn measure(order: &Order) -> Result<Value> {
    let device = Device::default();
    let mut rates = Map::new();
    for &[tokens, d_in, d_out] in &order.shapes {
        let normal = Distribution::Normal(0.0, 1.0);
        let x = Tensor::<2>::random([tokens, d_in], normal, &device);
        let weight = Tensor::<2>::random([d_in, d_out], normal, &device);
        let plain = best(order.steps, || drop(x.clone().matmul(weight.clone()).into_data()));
        let mut seconds = plain;
        if peft_kernels::PrepackedMatrix::is_supported(&device) {
            let values = weight.to_data().try_to_vec::<f32>()?;
            let packed = peft_kernels::PrepackedMatrix::new(
                &values,
                [d_in, d_out],
                order.dtype.element(),
                &device,
            );
            seconds =
                seconds.min(best(order.steps, || drop(packed.product(x.clone()).into_data())));
        }
        let operations = 2.0 * tokens as f64 * d_in as f64 * d_out as f64;
        rates.insert(format!("{tokens}x{d_in}x{d_out}"), json!(operations / seconds / 1e9));
    }
    Ok(json!({"gflops": rates}))
}

/// The least seconds.
fn best(rounds: usize, mut run: impl FnMut()) -> f64 {
    run();
    let seconds = (0..rounds).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}
