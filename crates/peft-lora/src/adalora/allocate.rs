//! Which singular values matter, and what becomes of the others.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use peft_core::StepContext;

use super::schedule::{Allocation, Schedule};
use super::{Adalora, AdaloraLayer};

/// The running means of one tensor's sensitivity, and of its distance from that mean.
#[derive(Module, Debug)]
struct Means {
    sensitivity: Param<Tensor<2>>,
    uncertainty: Param<Tensor<2>>,
}

/// Those of `A`, `B` and `e`.
#[derive(Module, Debug)]
pub(super) struct Scores {
    a: Means,
    b: Means,
    e: Means,
}

impl Scores {
    /// At zero, for tensors of these shapes.
    pub(super) fn new([a, b, e]: [[usize; 2]; 3], device: &Device) -> Self {
        let frozen = |shape: [usize; 2]| {
            Param::from_tensor(Tensor::zeros(shape, device)).set_require_grad(false)
        };
        let means = |shape| Means { sensitivity: frozen(shape), uncertainty: frozen(shape) };
        Self { a: means(a), b: means(b), e: means(e) }
    }
}

impl Means {
    /// Goes on with the values after a step and the gradient that led to them.
    fn update(
        &mut self,
        values: &Param<Tensor<2>>,
        gradients: &GradientsParams,
        schedule: &Schedule,
    ) {
        let Some(gradient) = gradients.get::<2>(values.id) else { return };
        let now = (plain(values) * gradient).abs();
        let (beta1, beta2) = (schedule.beta1, schedule.beta2);
        let sensitivity = plain(&self.sensitivity) * beta1 + now.clone() * (1.0 - beta1);
        let distance = (now - sensitivity.clone()).abs();
        let uncertainty = plain(&self.uncertainty) * beta2 + distance * (1.0 - beta2);
        set(&mut self.sensitivity, sensitivity);
        set(&mut self.uncertainty, uncertainty);
    }

    /// The importance of each value.
    fn importance(&self) -> Tensor<2> {
        plain(&self.sensitivity) * plain(&self.uncertainty)
    }
}

/// The values apart from gradients.
fn plain(param: &Param<Tensor<2>>) -> Tensor<2> {
    param.base().inner()
}

/// Other values in the same parameter.
fn set(param: &mut Param<Tensor<2>>, values: Tensor<2>) {
    let is_trained = param.is_require_grad();
    let set = |old: Tensor<2>| {
        let values = if old.device().is_autodiff() { Tensor::from_inner(values) } else { values };
        values.set_require_grad(is_trained)
    };
    *param = param.clone().map(set);
}

impl AdaloraLayer {
    /// The importance of each singular value.
    fn importance(&self) -> Vec<f32> {
        let of_a = self.scores.a.importance().mean_dim(0);
        let of_b = self.scores.b.importance().mean_dim(1).transpose();
        // In the order in which the reference adds them.
        let all = self.scores.e.importance() + (of_a + of_b);
        all.into_data().convert::<f32>().try_into_vec().expect("converted")
    }

    fn keep(&mut self, kept: &Tensor<2>) {
        let values = plain(&self.lora_e) * kept.clone();
        set(&mut self.lora_e, values);
    }
}

impl Adalora {
    /// What follows a step of the optimizer.
    pub(super) fn allocate(&mut self, context: &StepContext<'_>) {
        let layers = || self.layers.iter().flatten();
        let initial = layers().map(AdaloraLayer::rank).sum();
        let turn = self.schedule.turn(context.progress, layers().count(), initial);
        let schedule = self.schedule.clone();
        let of_some_rank = |layer: &&mut AdaloraLayer| layer.rank() > 0;
        let mut layers: Vec<_> = self.layers.iter_mut().flatten().filter(of_some_rank).collect();
        if turn.updates {
            for layer in &mut layers {
                let AdaloraLayer { lora_a, lora_b, lora_e, scores, .. } = &mut **layer;
                for (means, values) in
                    [(&mut scores.a, lora_a), (&mut scores.b, lora_b), (&mut scores.e, lora_e)]
                {
                    means.update(values, context.gradients, &schedule);
                }
            }
        }
        let (budget, is_final) = match turn.allocation {
            Allocation::None => return,
            Allocation::Kept => {
                for layer in layers {
                    let kept = plain(&layer.kept);
                    layer.keep(&kept);
                }
                return;
            }
            Allocation::Budget(budget) => (budget, false),
            Allocation::Final(budget) => (budget, true),
        };
        let importance: Vec<Vec<f32>> = layers.iter().map(|layer| layer.importance()).collect();
        let Some(threshold) = largest_left_out(importance.concat(), budget) else { return };
        for (layer, importance) in layers.into_iter().zip(importance) {
            let kept: Vec<f32> =
                importance.iter().map(|one| f32::from(u8::from(*one > threshold))).collect();
            let device = plain(&layer.kept).device();
            let kept = Tensor::<1>::from_floats(&kept[..], &device).unsqueeze::<2>();
            layer.keep(&kept);
            if is_final {
                set(&mut layer.kept, kept);
            }
        }
    }
}

/// The importance of the most important one that the budget has no room for; what is no more important is
/// left out with it. `None` where there is room for all.
fn largest_left_out(mut importance: Vec<f32>, budget: usize) -> Option<f32> {
    let too_many = importance.len().checked_sub(budget).filter(|count| *count > 0)?;
    importance.sort_unstable_by(f32::total_cmp);
    Some(importance[too_many - 1])
}
