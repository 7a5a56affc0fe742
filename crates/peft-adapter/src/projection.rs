//! The two projections of an adapter.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Exchange, InitContext, Key, Layout, Pass};

use crate::mixture::Mixture;
use crate::phm::{PhmLinear, SharedPhm};
use crate::sparse::{SparseLinear, Survivors};
use crate::{BottleneckConfig, InitWeights};

/// Which of an adapter's projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// `[d, m]`.
    Down,
    /// `[m, d]`.
    Up,
}

/// A projection down to the bottleneck or up from it.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Projection {
    /// `y = x W + b`.
    Dense(Linear),
    /// `y = x (Σ_i A_i ⊗ W_i) + b`.
    Phm(PhmLinear),
    /// `y = x W_e + b_e`, with an expert `e` that is drawn.
    Mixture(Mixture),
    /// `y = x W + b`, with few values in `W`.
    Sparse(SparseLinear),
}

/// What the projections of a model have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) phm: Option<&'a SharedPhm>,
    pub(crate) survivors: Option<&'a Survivors>,
}

impl Projection {
    pub(crate) fn new(
        config: &BottleneckConfig,
        position: Position,
        shape: [usize; 2],
        context: &InitContext<'_>,
    ) -> Self {
        if config.phm_layer {
            return Self::Phm(PhmLinear::new(config, position, shape, context));
        }
        match config.experts_at(position) {
            1 => Self::Dense(dense(config, position, shape, context)),
            experts => {
                let expert = |_| dense(config, position, shape, context);
                Self::Mixture(Mixture::of((0..experts).map(expert).collect()))
            }
        }
    }

    /// `[tokens, d_in]` to `[tokens, d_out]`.
    pub(crate) fn forward(
        &self,
        input: Tensor<2>,
        shared: Shared<'_>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        match self {
            Self::Dense(linear) => linear.forward(input),
            Self::Phm(linear) => linear.forward(input, shared.phm, pass),
            Self::Mixture(experts) => experts.forward(input, pass),
            Self::Sparse(linear) => linear.forward(input, shared.survivors, pass),
        }
    }

    /// The tensors under the keys that `key` makes of their names.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, key: impl Fn(&str) -> Key) {
        match self {
            Self::Dense(linear) => exchange_linear(linear, file, key),
            Self::Phm(linear) => linear.exchange(file, key),
            Self::Mixture(experts) => experts.exchange(file, key),
            Self::Sparse(linear) => linear.exchange(file, key),
        }
    }

    /// The weights, if they are dense.
    pub(crate) fn dense(&mut self) -> Option<&mut Linear> {
        match self {
            Self::Dense(linear) => Some(linear),
            _ => None,
        }
    }

    /// The average in the place of experts.
    pub(crate) fn finish(&mut self) {
        if let Self::Mixture(experts) = self {
            *self = Self::Dense(experts.average());
        }
    }
}

/// A projection with weights of its own, at its start.
fn dense(
    config: &BottleneckConfig,
    position: Position,
    shape: [usize; 2],
    context: &InitContext<'_>,
) -> Linear {
    let [d_in, d_out] = shape;
    let weight = match (config.init_weights, position) {
        (InitWeights::Bert, _) => context.random(shape, BERT),
        // Kaiming-uniform with a = sqrt(5).
        (InitWeights::MamAdapter, Position::Down) => {
            let bound = 1.0 / (d_in as f64).sqrt();
            context.random(shape, Distribution::Uniform(-bound, bound))
        }
        (InitWeights::MamAdapter, Position::Up) => Tensor::zeros(shape, context.device),
        (InitWeights::Houlsby, _) => truncated_normal(shape, 0.01, context),
    };
    let bias = Some(zeros(d_out, context.device));
    Linear { weight: Param::from_tensor(weight), bias }
}

pub(crate) fn exchange_linear(
    linear: &mut Linear,
    file: &mut Exchange<'_>,
    key: impl Fn(&str) -> Key,
) {
    file.param(key("weight"), &mut linear.weight, Layout::Transposed);
    if let Some(bias) = &mut linear.bias {
        file.param(key("bias"), bias, Layout::AsIs);
    }
}

/// BERT's own start: `N(0, 0.02)`.
const BERT: Distribution = Distribution::Normal(0.0, 0.02);

/// A linear layer that starts as BERT's do.
pub(crate) fn bert_linear(shape: [usize; 2], context: &InitContext<'_>) -> Linear {
    let weight = Param::from_tensor(context.random(shape, BERT));
    Linear { weight, bias: Some(zeros(shape[1], context.device)) }
}

pub(crate) fn zeros(d: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::zeros([d], device))
}

/// `N(0, std)` without the values beyond two standard deviations.
fn truncated_normal(shape: [usize; 2], std: f64, context: &InitContext<'_>) -> Tensor<2> {
    let draw = || context.random(shape, Distribution::Normal(0.0, 1.0));
    // One in 22 lies outside and is drawn again; after eight times, one in 10^12 is left.
    let values = (0..8).fold(draw(), |values, _| {
        let outside = values.clone().abs().greater_elem(2.0);
        values.mask_where(outside, draw())
    });
    values.clamp(-2.0, 2.0) * std
}

#[cfg(test)]
mod tests {
    use peft_core::Base;

    use super::*;

    fn weight(init_weights: InitWeights, position: Position) -> Vec<f32> {
        let config = BottleneckConfig { init_weights, ..BottleneckConfig::default() };
        let shape = [64, 256];
        let device = Device::default();
        let base = Base::new(&device);
        let context = InitContext::new(&base, &device);
        match Projection::new(&config, position, shape, &context) {
            Projection::Dense(linear) => {
                assert_eq!(linear.weight.dims(), shape);
                linear.weight.val().into_data().try_into_vec().expect("floats")
            }
            other => panic!("{other:?} is no plain projection"),
        }
    }

    fn deviation(values: &[f32]) -> f32 {
        (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
    }

    #[test]
    fn projections_start_as_the_reference_lets_them() {
        let bert = deviation(&weight(InitWeights::Bert, Position::Up));
        assert!((bert - 0.02).abs() < 1e-3, "{bert}");

        let mam = weight(InitWeights::MamAdapter, Position::Down);
        let bound = 1.0 / 64f32.sqrt();
        assert!(mam.iter().all(|v| v.abs() <= bound));
        assert!((deviation(&mam) - bound / 3f32.sqrt()).abs() < 3e-3, "{}", deviation(&mam));
        assert!(weight(InitWeights::MamAdapter, Position::Up).iter().all(|v| *v == 0.0));

        // The deviation of a normal distribution cut at two deviations is 0.8796 of its own.
        let houlsby = weight(InitWeights::Houlsby, Position::Down);
        assert!(houlsby.iter().all(|v| v.abs() <= 0.02));
        assert!((deviation(&houlsby) - 0.008_796).abs() < 3e-4, "{}", deviation(&houlsby));
    }
}
