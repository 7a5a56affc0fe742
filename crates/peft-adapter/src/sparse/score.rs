//! Scores of weights, and which are left.

use burn::tensor::{Distribution, Tensor};
use peft_core::{Calibration, Error, InitContext, Result};

use super::config::Pruning;
use super::{SparseAdapterConfig, num_weights};
use crate::Bottleneck;

/// By how much `grasp` moves the weights for a difference of gradients, over their norm.
const MOVE: f64 = 1e-2;

/// The places of the weights that are left, in ascending order.
pub(super) fn places(
    config: &SparseAdapterConfig,
    dense: &mut Bottleneck,
    shapes: &[[usize; 2]],
    context: &InitContext<'_>,
) -> Result<Vec<i64>> {
    let weights = num_weights(shapes);
    let left = config.survivors(weights);
    let chance = || {
        let drawn = context.random([weights], Distribution::Uniform(0.0, 1.0)).into_data();
        drawn.iter::<f32>().collect::<Vec<_>>()
    };
    let scores = match (config.pruning, context.calibration) {
        (Pruning::Random, _) => chance(),
        (Pruning::Er, _) => return Ok(by_density(&chance(), shapes, left)),
        (Pruning::Magnitude, _) => numbers(values(dense)).into_iter().map(f32::abs).collect(),
        (Pruning::Snip, Some(batches)) => {
            let gradient = gradient(config, dense, batches)?;
            numbers((gradient * values(dense)).abs())
        }
        (Pruning::Grasp, Some(batches)) => grasp(config, dense, batches)?,
        (pruning, None) => {
            tracing::warn!(
                "pruning = {pruning:?} looks at data, and there are none here: the largest weights are left"
            );
            numbers(values(dense)).into_iter().map(f32::abs).collect()
        }
    };
    if scores.iter().any(|score| !score.is_finite()) {
        let expected = "scores are not finite: the loss is not, before the first step";
        return Err(Error::config("pruning", format!("{:?}", config.pruning), expected));
    }
    Ok(largest(&scores, left, 0))
}

/// The weights of all projections, `[n]`.
pub(super) fn values(dense: &mut Bottleneck) -> Tensor<1> {
    let weights = dense.projections().filter_map(|projection| projection.dense());
    let flat = weights.map(|linear| linear.weight.val().detach().reshape([-1]));
    Tensor::cat(flat.collect(), 0)
}

fn numbers(values: Tensor<1>) -> Vec<f32> {
    values.into_data().iter::<f32>().collect()
}

/// The gradient of the loss with respect to all weights, `[n]`, a mean over batches.
fn gradient(
    config: &SparseAdapterConfig,
    dense: &mut Bottleneck,
    batches: &dyn Calibration,
) -> Result<Tensor<1>> {
    let count = batches.len().min(config.calibration_batches);
    if count == 0 {
        let expected = "there must be at least one batch to look at";
        return Err(Error::config("calibration_batches", config.calibration_batches, expected));
    }
    let mut sum = values(dense).zeros_like();
    for batch in 0..count {
        let loss = batches.loss(batch, &*dense)?;
        // That of a batch that asks nothing of the model.
        if !loss.device().is_autodiff() {
            continue;
        }
        let gradients = loss.backward();
        let device = sum.device();
        let flat = dense.projections().filter_map(|projection| projection.dense()).map(|linear| {
            let weight = linear.weight.val();
            match weight.grad(&gradients) {
                Some(gradient) => {
                    Tensor::<2>::from_data(gradient.into_data(), &device).reshape([-1])
                }
                None => Tensor::<1>::zeros([weight.shape().num_elements()], &device),
            }
        });
        sum = sum + Tensor::cat(flat.collect(), 0) / count as f64;
    }
    Ok(sum)
}

/// `w (H g)`, which is how much the norm of the gradient `g` grows with the weight. The product with the
/// Hessian `H` is a difference of gradients on both sides of the weights, `(g(w + ε g) - g(w - ε g)) / 2 ε`,
/// as there are no derivatives of gradients here.
fn grasp(
    config: &SparseAdapterConfig,
    dense: &mut Bottleneck,
    batches: &dyn Calibration,
) -> Result<Vec<f32>> {
    let start = values(dense);
    let gradient_here = gradient(config, dense, batches)?;
    let norm = |values: &Tensor<1>| values.clone().square().sum().sqrt().into_scalar::<f32>();
    let (of_weights, of_gradient) = (norm(&start), norm(&gradient_here));
    if of_gradient == 0.0 {
        return Ok(vec![0.0; start.dims()[0]]);
    }
    let step = gradient_here * (MOVE * f64::from(of_weights / of_gradient));
    let mut at = |weights: Tensor<1>| {
        set(dense, weights);
        gradient(config, dense, batches)
    };
    // The factor of the difference is the same for all weights.
    let product = at(start.clone() + step.clone())? - at(start.clone() - step)?;
    set(dense, start.clone());
    Ok(numbers(product * start))
}

/// Puts other weights into the projections.
fn set(dense: &mut Bottleneck, values: Tensor<1>) {
    let mut begin = 0;
    for linear in dense.projections().filter_map(|projection| projection.dense()) {
        let [d_in, d_out] = linear.weight.lazy_shape().dims();
        let own = values.clone().narrow(0, begin, d_in * d_out).reshape([d_in, d_out]);
        begin += d_in * d_out;
        linear.weight = linear.weight.clone().map(|_| own.detach().require_grad());
    }
}

/// The places of the largest scores, in ascending order, behind `begin`.
fn largest(scores: &[f32], count: usize, begin: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Of equal scores the first.
    let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if 0 < count && count < order.len() {
        order.select_nth_unstable_by(count - 1, by_score);
    }
    order.truncate(count);
    order.sort_unstable();
    order.into_iter().map(|place| (begin + place) as i64).collect()
}

/// Of each projection as many as its share allows, by chance.
fn by_density(chance: &[f32], shapes: &[[usize; 2]], left: usize) -> Vec<i64> {
    let mut begin = 0;
    let mut places = Vec::with_capacity(left);
    for ([d_in, d_out], count) in shapes.iter().zip(counts(shapes, left)) {
        let end = begin + d_in * d_out;
        places.extend(largest(&chance[begin..end], count, begin));
        begin = end;
    }
    places
}

/// How many weights of each projection are left: `ε (d_in + d_out)`, at most all of them, with `ε` such that
/// there are `left` together.
fn counts(shapes: &[[usize; 2]], left: usize) -> Vec<usize> {
    let of = |epsilon: f64| -> Vec<f64> {
        let share = |[d_in, d_out]: &[usize; 2]| {
            (epsilon * (d_in + d_out) as f64).min((d_in * d_out) as f64)
        };
        shapes.iter().map(share).collect()
    };
    // The sum grows with ε, to that of all weights.
    let (mut low, mut high) = (0.0, num_weights(shapes) as f64);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        let enough = of(middle).iter().sum::<f64>() >= left as f64;
        *(if enough { &mut high } else { &mut low }) = middle;
    }
    // Whole numbers of the same sum: each goes up where the sum so far does.
    let (mut exact, mut given) = (0.0, 0);
    let whole = of(high).into_iter().zip(shapes).map(|(share, [d_in, d_out])| {
        exact += share;
        let count = ((exact + 1e-6).round() as usize).saturating_sub(given).min(d_in * d_out);
        given += count;
        count
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_density_add_up() {
        // (8 + 4) : (4 + 8) : (2 + 2), of which the last has four weights only.
        let shapes = [[8, 4], [4, 8], [2, 2]];
        assert_eq!(counts(&shapes, 14), [6, 6, 2]);
        assert_eq!(counts(&shapes, 28), [12, 12, 4]);
        assert_eq!(counts(&shapes, 52), [24, 24, 4]);
        assert_eq!(counts(&shapes, 68), [32, 32, 4]);
        for left in 1..=68 {
            assert_eq!(counts(&shapes, left).iter().sum::<usize>(), left);
        }
    }

    #[test]
    fn the_largest_are_left_in_their_order() {
        assert_eq!(largest(&[0.5, -1.0, 2.0, 0.5, 7.0], 3, 10), [10, 12, 14]);
        assert_eq!(largest(&[0.5, 0.5], 2, 0), [0, 1]);
    }
}
