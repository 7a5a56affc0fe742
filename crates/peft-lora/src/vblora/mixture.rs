//! Pieces of a factor as mixtures of vectors.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation::softmax};
use peft_core::{Exchange, InitContext, Layout};

/// Logits far below all others, of vectors that a file says nothing of.
const NEVER: f32 = -1e4;
/// The least weight that has a logit; a softmax of 32 bits makes nothing of it.
const LEAST: f32 = 1e-30;

/// Logits `[n, m, h]`: for each of `n m` pieces, over the `h` vectors of a bank.
#[derive(Module, Debug)]
pub struct Mixture {
    /// `[n, m, h]`.
    pub logits: Param<Tensor<3>>,
}

impl Mixture {
    pub(super) fn new(shape: [usize; 3], std: f64, context: &InitContext<'_>) -> Self {
        let logits = context.random(shape, Distribution::Normal(0.0, std));
        Self { logits: Param::from_tensor(logits) }
    }

    /// Of the logits.
    pub(super) fn id(&self) -> ParamId {
        self.logits.id
    }

    /// `[n, m, b]`: for each piece its `k` vectors of the largest logits, of a bank `[h, b]`, weighted
    /// by the softmax of these logits.
    pub(super) fn pieces(&self, bank: &Tensor<2>, k: usize) -> Tensor<3> {
        let ([n, m, _], [_, length]) = (self.logits.val().dims(), bank.dims());
        let chosen = self.chosen(k);
        let weights = softmax(self.logits.val().gather(2, chosen.clone()), 2);
        let vectors = bank.clone().select(0, chosen.reshape([n * m * k]));
        let weights = weights.reshape([n * m, 1, k]);
        weights.matmul(vectors.reshape([n * m, k, length])).reshape([n, m, length])
    }

    /// `[n, m, k]`: the places of the largest logits, the largest first.
    fn chosen(&self, k: usize) -> Tensor<3, Int> {
        let logits = self.logits.val().detach();
        let device = logits.device().without_autodiff();
        let (_, places) = logits.topk_with_indices(k, 2);
        Tensor::from_data(places.into_data(), &device)
    }

    /// All logits, or, with `only` so many, the places of the largest and the weights of all of these but
    /// the last: they sum up to 1.
    pub(super) fn exchange(&mut self, file: &mut Exchange<'_>, key: &str, only: Option<usize>) {
        let Some(k) = only else {
            file.param(key, &mut self.logits, Layout::AsIs);
            return;
        };
        let (logits, places) = (self.logits.val(), self.chosen(k));
        let ([n, m, vectors], device) = (logits.dims(), logits.device());
        let weights = softmax(logits.detach().gather(2, places.clone()), 2);
        let mut weights = Param::from_tensor(weights.narrow(2, 0, k - 1).detach());
        let mut places = Param::initialized(ParamId::new(), places);
        let written = [floats(weights.val()), numbers(places.val())];
        file.places(format!("{key}_topk_indices"), &mut places, &[vectors]);
        file.param(format!("{key}_topk_weights"), &mut weights, Layout::AsIs);
        let read = [floats(weights.val()), numbers(places.val())];
        if read != written {
            let logits = logits_of(&read[0], &read[1], [n * m, vectors, k]);
            let logits = TensorData::new(logits, [n, m, vectors]);
            self.logits = param_like(&self.logits, logits, &device);
        }
    }
}

/// `[pieces, h]`: logits with these weights, `[pieces, k - 1]`, at these places, `[pieces, k]`.
fn logits_of(weights: &[f32], places: &[f32], [pieces, vectors, k]: [usize; 3]) -> Vec<f32> {
    let mut logits = vec![NEVER; pieces * vectors];
    for piece in 0..pieces {
        let weights = &weights[piece * (k - 1)..(piece + 1) * (k - 1)];
        let last = 1.0 - weights.iter().sum::<f32>();
        let places = &places[piece * k..(piece + 1) * k];
        for (place, weight) in places.iter().zip(weights.iter().chain([&last])) {
            logits[piece * vectors + *place as usize] = weight.max(LEAST).ln();
        }
    }
    logits
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted before")
}

fn numbers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted before")
}

/// The same parameter with other values.
fn param_like(old: &Param<Tensor<3>>, values: TensorData, device: &Device) -> Param<Tensor<3>> {
    let new = Tensor::from_data(values, device).set_require_grad(old.is_require_grad());
    Param::initialized(old.id, new)
}
