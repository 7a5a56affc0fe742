//! How fast this machine computes.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use peft_kernels::{Element, laid_out};

/// How fast a device computes, measured in a fraction of a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Operations of a product with a frozen matrix in a second; a multiplication and an addition are
    /// two.
    pub product_rate: f64,
    /// Numbers that go from or to memory in a second.
    pub number_rate: f64,
}

/// The side of the matrices that are multiplied.
const SIDE: usize = 768;
/// The numbers of tensors that are added: more than caches hold.
const NUMBERS: usize = 1 << 23;
/// How often each is done.
const ROUNDS: usize = 12;

impl Machine {
    /// Measures a device, with a matrix laid out in this type.
    pub fn measured(element: Element, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let x = Tensor::<2>::ones([SIDE, SIDE], &device);
        let product = match laid_out(&vec![1.0; SIDE * SIDE], [SIDE, SIDE], false, element, &device)
        {
            Some(weight) => least(|| drop(weight.product(x.clone()).into_data())),
            None => least(|| drop(x.clone().matmul(x.clone()).into_data())),
        };
        let [a, b] = [1.0, 2.0].map(|value| Tensor::<1>::full([NUMBERS], value, &device));
        let sum = least(|| drop(peft_kernels::sum(a.clone(), b.clone(), None).into_data()));
        Self {
            product_rate: 2.0 * (SIDE * SIDE * SIDE) as f64 / product,
            number_rate: 3.0 * NUMBERS as f64 / sum,
        }
    }
}

/// The least seconds of several rounds, the first left out.
fn least(mut run: impl FnMut()) -> f64 {
    run();
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}
