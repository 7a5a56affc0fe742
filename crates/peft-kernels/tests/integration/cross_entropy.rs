use burn::tensor::{Int, Tensor, TensorData};
use peft_kernels::cross_entropy;

use crate::both::both;

#[test]
fn the_loss_and_its_gradient_are_those_of_burn_in_f64() {
    for [rows, classes] in [[1, 2], [37, 5], [3, 2500], [130, 33]] {
        both(&format!("{rows} x {classes}"), &[[rows, classes]], 2e-6, |inputs| {
            let device = inputs[0].device().without_autodiff();
            let chosen = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
            let chosen = Tensor::<1, Int>::from_data(TensorData::new(chosen, [rows]), &device);
            // The gradient of a mean is small beside the loss; logits are neither small nor alike.
            let loss = cross_entropy(inputs[0].clone() * 9.0 - 4.0, chosen);
            (loss * rows as f64).unsqueeze()
        });
    }
}
