//! Gates that are zero or one with some probability, and have a gradient.

use burn::tensor::{Tensor, activation::sigmoid};

/// The hard concrete distribution (Louizos, Welling and Kingma 2018, arXiv 1712.01312): a number between
/// zero and one, each of which it is exactly with a probability above zero.
///
/// ```text
/// s = σ(log u - log(1 - u) + α)      u uniform from 0 to 1
/// z = min(1, max(0, s (r - l) + l))  l < 0, r > 1
/// P(z ≠ 0) = σ(α - log(-l / r))
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HardConcrete {
    /// `l`.
    pub lower: f64,
    /// `r`.
    pub upper: f64,
}

/// How near a uniform number may be to 0 and 1, whose logarithms are infinite.
const NEAREST: f64 = 1e-6;

impl HardConcrete {
    /// `z` of each `α`: drawn with a uniform number for each, or without, at `u = 1/2`.
    pub fn gates<const D: usize>(&self, alpha: Tensor<D>, uniform: Option<Tensor<D>>) -> Tensor<D> {
        let logits = match uniform {
            Some(uniform) => {
                let uniform = uniform.clamp(NEAREST, 1.0 - NEAREST);
                alpha + uniform.clone().log() - (uniform.neg() + 1.0).log()
            }
            None => alpha,
        };
        (sigmoid(logits) * (self.upper - self.lower) + self.lower).clamp(0.0, 1.0)
    }

    /// `P(z ≠ 0)` of each `α`.
    pub fn open<const D: usize>(&self, alpha: Tensor<D>) -> Tensor<D> {
        sigmoid(alpha - (-self.lower / self.upper).ln())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    const GATES: HardConcrete = HardConcrete { lower: -1.3, upper: 1.6 };

    /// In `f64`, from the equations.
    fn gate(alpha: f64, u: Option<f64>) -> f64 {
        let logit = alpha + u.map_or(0.0, |u| u.ln() - (1.0 - u).ln());
        (2.9 / (1.0 + (-logit).exp()) - 1.3).clamp(0.0, 1.0)
    }

    fn tensor(values: &[f64], device: &Device) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F64))
    }

    fn numbers(tensor: Tensor<1>) -> Vec<f64> {
        tensor.into_data().convert::<f64>().try_into_vec().expect("converted")
    }

    #[test]
    fn gates_and_their_gradients_are_those_of_the_equations() {
        let device = Device::default().autodiff();
        // Shut, within, at both ends of it, and open.
        let alphas = [-4.0, -0.15, 0.0, 0.3, 0.9, 1.7, 5.0];
        let drawn = [0.2, 0.45, 0.52, 0.4, 0.6, 0.3, 0.7];
        for noise in [None, Some(drawn)] {
            let alpha = tensor(&alphas, &device).require_grad();
            let uniform = noise.map(|noise| tensor(&noise, &device));
            let found = GATES.gates(alpha.clone(), uniform);
            let factors = [0.7, -1.1, 2.0, 0.4, -0.6, 1.3, 0.9];
            let sum = (found.clone() * tensor(&factors, &device)).sum();
            let gradient = numbers(alpha.grad(&sum.backward()).expect("it is trained"));
            let found = numbers(found.inner());
            for (at, &alpha) in alphas.iter().enumerate() {
                let u = noise.map(|noise| noise[at]);
                assert!((found[at] - gate(alpha, u)).abs() < 1e-12, "{alpha}, {u:?}");
                let step = 1e-5;
                let slope = (gate(alpha + step, u) - gate(alpha - step, u)) / (2.0 * step);
                let distance = gradient[at] - factors[at] * slope;
                assert!(distance.abs() < 1e-8, "{alpha}, {u:?}: {} beside {slope}", gradient[at]);
            }
        }
    }

    #[test]
    fn the_probability_that_a_gate_is_open_is_the_share_of_draws_in_which_it_is() {
        let device = Device::default();
        for alpha in [-1.5, 0.0, 1.0] {
            let uniform: Vec<f64> = (0..20_000).map(|i| (f64::from(i) + 0.5) / 20_000.0).collect();
            let alphas = tensor(&vec![alpha; uniform.len()], &device);
            let gates = numbers(GATES.gates(alphas.clone(), Some(tensor(&uniform, &device))));
            let share = gates.iter().filter(|z| **z != 0.0).count() as f64 / 20_000.0;
            let said = numbers(GATES.open(alphas))[0];
            assert!((share - said).abs() < 1e-4, "{alpha}: {share}, said was {said}");
        }
    }
}
