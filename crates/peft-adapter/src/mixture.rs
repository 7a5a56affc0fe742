//! AdaMix: several projections, of which one is drawn in each pass of training.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, module::linear};
use peft_core::{Exchange, Key, Layout, MemoKey, Pass};

/// A projection by one of several experts, `y = x W_e + b_e` (Wang et al. 2022, arXiv 2205.12410).
///
/// In a pass of training `e` is drawn, for all tokens; the draw is a function of the run's seed, the step
/// and its number. Otherwise `W` and `b` are the experts' mean, and so they are after training.
#[derive(Module, Debug)]
pub struct Mixture {
    /// `[experts, d_in, d_out]`.
    pub weight: Param<Tensor<3>>,
    /// `[experts, d_out]`.
    pub bias: Param<Tensor<2>>,
}

impl Mixture {
    /// # Panics
    /// If there are no experts, or one has no bias.
    pub(crate) fn of(experts: Vec<Linear>) -> Self {
        let bias = |expert: &Linear| expert.bias.as_ref().expect("projections have biases").val();
        let biases = experts.iter().map(bias).collect();
        let weights = experts.iter().map(|expert| expert.weight.val()).collect();
        // A parameter is a leaf of the tape, whatever it was made of.
        let bias = Tensor::stack::<2>(biases, 0).detach();
        let weight = Tensor::stack::<3>(weights, 0).detach();
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) }
    }

    /// `[tokens, d_in]` to `[tokens, d_out]`.
    pub(crate) fn forward(&self, input: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let (weight, bias) = match pass.choose(self.weight.lazy_shape()[0]) {
            Some(expert) => (
                self.weight.val().narrow(0, expert, 1).squeeze_dim(0),
                self.bias.val().narrow(0, expert, 1).squeeze_dim(0),
            ),
            None => {
                let key = MemoKey { of: self.weight.id, name: "average", site: None };
                pass.memo.get(key, || self.means())
            }
        };
        linear(input, weight, Some(bias))
    }

    fn means(&self) -> (Tensor<2>, Tensor<1>) {
        (self.weight.val().mean_dim(0).squeeze_dim(0), self.bias.val().mean_dim(0).squeeze_dim(0))
    }

    /// The experts' mean.
    pub(crate) fn average(&self) -> Linear {
        let (weight, bias) = self.means();
        let (device, is_trained) = (self.weight.lazy_device(), self.weight.is_require_grad());
        let weight = Tensor::from_data(weight.into_data(), &device);
        let bias = Tensor::from_data(bias.into_data(), &device);
        Linear {
            weight: Param::from_tensor(weight).set_require_grad(is_trained),
            bias: Some(Param::from_tensor(bias).set_require_grad(is_trained)),
        }
    }

    /// The tensors of a run that is not finished.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, key: impl Fn(&str) -> Key) {
        file.param(key("experts.weight"), &mut self.weight, Layout::Transposed);
        file.param(key("experts.bias"), &mut self.bias, Layout::AsIs);
    }
}

/// `(KL(p, q) + KL(q, p)) / 2` of the distributions that `[targets, outputs]` logits are, a mean over
/// targets, `[1]`. As in the reference, each is a constant where it is the one that the other is compared
/// with.
pub(crate) fn divergence(first: Tensor<2>, second: Tensor<2>) -> Tensor<1> {
    let targets = first.dims()[0].max(1) as f64;
    let toward = |from: &Tensor<2>, to: &Tensor<2>| {
        let goal = softmax(to.clone().detach(), 1);
        let log_goal = log_softmax(to.clone().detach(), 1);
        (goal * (log_goal - log_softmax(from.clone(), 1))).sum()
    };
    (toward(&first, &second) + toward(&second, &first)) * (0.5 / targets)
}
