//! AdamW, whose update of a parameter is one pass over its numbers.

#[cfg(feature = "flex")]
mod fast;

use burn::optim::{AdamWConfig, AdamWState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

/// AdamW with decoupled weight decay. Its numbers and its saved state are those of
/// [`burn::optim::AdamW`], bit for bit.
///
/// On the CPU, in f32, a parameter and its moments are updated where they lie, unless their memory is
/// shared; elsewhere it is Burn's.
#[derive(Clone)]
pub struct AdamW {
    settings: Settings,
    burn: burn::optim::AdamW,
}

/// What the update depends on beside the rate and the number of the step.
#[derive(Debug, Clone, Copy)]
struct Settings {
    betas: [f32; 2],
    epsilon: f32,
    weight_decay: f32,
}

impl AdamW {
    /// With betas 0.9 and 0.999 and an epsilon of 1e-8.
    pub fn new(weight_decay: f64) -> Self {
        let weight_decay = weight_decay as f32;
        let settings = Settings { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay };
        let burn = AdamWConfig::new()
            .with_beta_1(settings.betas[0])
            .with_beta_2(settings.betas[1])
            .with_epsilon(settings.epsilon)
            .with_weight_decay(settings.weight_decay)
            .build();
        Self { settings, burn }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        #[cfg(feature = "flex")]
        if [&tensor, &gradient].into_iter().all(crate::fused::is_fast) {
            let (tensor, state) = fast::step(&self.settings, rate, tensor, gradient, state);
            return (tensor, Some(state));
        }
        self.burn.step(rate, tensor, gradient, state)
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        <burn::optim::AdamW as Optimizer>::to_device(state, device)
    }
}
