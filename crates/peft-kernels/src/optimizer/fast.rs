//! The update, on all cores.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::Settings;
use crate::fused::{Array, Shared, grid, numbers};
use crate::simd::{Lanes, run};

/// Backends with the update of this crate.
#[backend_extension(Flex)]
pub trait Updates: Backend {
    /// A parameter and its two moments after a step along the gradient.
    fn updated(
        values: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        factors: Factors,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The numbers of a step that are the same for all of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// Of the moments before, if there are any.
    betas: [f32; 2],
    /// Of the gradient and its square in them.
    shares: [f32; 2],
    /// What the moments are divided by.
    corrections: [f32; 2],
    epsilon: f32,
    /// What decay leaves of a number.
    left: f32,
    rate: f32,
}

/// One step. The state's moments have the tensor's shape.
pub(super) fn step<const D: usize>(
    settings: &Settings,
    rate: f64,
    tensor: Tensor<D>,
    gradient: Tensor<D>,
    state: Option<AdamWState<D>>,
) -> (Tensor<D>, AdamWState<D>) {
    let betas = settings.betas;
    let momentum = match state {
        Some(AdamWState { momentum }) => momentum,
        // What any number, zeros of both signs among them, can be added to unchanged.
        None => {
            let [first, second] = [(); 2].map(|()| gradient.full_like(-0.0));
            AdaptiveMomentumState::new(0, first, second)
        }
    };
    let time = momentum.time + 1;
    let factors = Factors {
        betas,
        shares: betas.map(|beta| 1.0 - beta),
        corrections: betas.map(|beta| 1.0 - beta.powi(time as i32)),
        epsilon: settings.epsilon,
        left: (1.0 - rate * f64::from(settings.weight_decay)) as f32,
        rate: rate as f32,
    };
    let (values, first, second) = <Dispatch as Updates>::updated(
        tensor.into_dispatch(),
        gradient.into_dispatch(),
        momentum.moment_1.into_dispatch(),
        momentum.moment_2.into_dispatch(),
        factors,
    );
    let [values, first, second] = [values, first, second].map(Tensor::from_dispatch);
    (values, AdamWState::new(AdaptiveMomentumState::new(time, first, second)))
}

impl Updates for Flex {
    fn updated(
        values: Array,
        gradient: Array,
        first: Array,
        second: Array,
        factors: Factors,
    ) -> (Array, Array, Array) {
        let gradient = gradient.to_contiguous();
        let mut updated = [values, first, second].map(whole);
        let [values, first, second] = &mut updated;
        let [values, first, second] = [values, first, second].map(|array| {
            // Copied where it is shared.
            Shared::of(array.storage_mut::<f32>())
        });
        let gradient = numbers(&gradient);
        grid(1, gradient.len().div_ceil(PART), |_, parts| {
            let range = parts.start * PART..gradient.len().min(parts.end * PART);
            // SAFETY: the arrays live until the end of the function and have as many numbers as the
            // gradient; no two tasks have the same part.
            let [values, first, second] =
                [values, first, second].map(|array| unsafe { array.part(range.clone()) });
            run(Update { values, first, second, gradient: &gradient[range], factors });
        });
        let [values, first, second] = updated;
        (values, first, second)
    }
}

/// Numbers that are updated without looking for another core.
const PART: usize = 1 << 14;

/// An array whose memory holds its numbers, in their order, and no others.
fn whole(array: Array) -> Array {
    let count = array.shape().num_elements();
    match array.layout().contiguous_offsets() {
        Some((0, _)) if array.storage::<f32>().len() == count => array,
        _ => Array::from_data(array.into_data()),
    }
}

struct Update<'a> {
    values: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    gradient: &'a [f32],
    factors: Factors,
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { values, first, second, gradient, factors } = self;
        let all = |value: f32| Lanes::splat(simd, value);
        let (betas, shares) = (factors.betas.map(all), factors.shares.map(all));
        let corrections = factors.corrections.map(all);
        let [epsilon, left, rate] = [factors.epsilon, factors.left, factors.rate].map(all);
        let parts = values.chunks_mut(S::F32_LANES).zip(gradient.chunks(S::F32_LANES));
        let moments = first.chunks_mut(S::F32_LANES).zip(second.chunks_mut(S::F32_LANES));
        for ((values, gradient), (first, second)) in parts.zip(moments) {
            let slope = Lanes::load(simd, gradient);
            // Each product and sum rounded by itself, as Burn's are.
            let mean = Lanes::load(simd, first) * betas[0] + slope * shares[0];
            let square = Lanes::load(simd, second) * betas[1] + slope * slope * shares[1];
            let size = (square / corrections[1]).sqrt() + epsilon;
            let change = mean / corrections[0] / size;
            (Lanes::load(simd, values) * left - change * rate).store(values);
            mean.store(first);
            square.store(second);
        }
    }
}
