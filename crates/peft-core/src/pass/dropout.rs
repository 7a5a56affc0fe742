//! Masks of dropout: a function of the run's seed, the step and the number of the draw.

use burn::tensor::{Device, Tensor, TensorData};

/// A seed for one of many uses of a seed (SplitMix64; Steele et al. 2014).
pub(super) fn mix(seed: u64, with: u64) -> u64 {
    scramble(seed.wrapping_add(with.wrapping_add(1).wrapping_mul(GOLDEN)))
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Zero with probability `p`, `1 / (1 - p)` otherwise.
///
/// Drawn from a counter, not from the device's random state, which whatever else runs in the
/// process may advance.
pub(super) fn mask<const D: usize>(
    shape: [usize; D],
    p: f64,
    draw: u64,
    device: &Device,
) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let kept = (1.0 / (1.0 - p)) as f32;
    // Each draw is two numbers of 32 bits, which are below this with probability p.
    let bound = (p * 4_294_967_296.0) as u64;
    let mut values = vec![0.0f32; count];
    for (pair, values) in values.chunks_mut(2).enumerate() {
        let bits = scramble(draw.wrapping_add((pair as u64 + 1).wrapping_mul(GOLDEN)));
        for (value, bits) in values.iter_mut().zip([bits & 0xFFFF_FFFF, bits >> 32]) {
            *value = if bits < bound { 0.0 } else { kept };
        }
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_values_are_dropped_as_asked_for_and_the_mean_stays() {
        let device = Device::default();
        for p in [0.1, 0.5, 0.9] {
            let values: Vec<f32> =
                mask([301, 333], p, 7, &device).into_data().try_into_vec().expect("floats");
            let dropped = values.iter().filter(|v| **v == 0.0).count() as f64;
            let share = dropped / values.len() as f64;
            assert!((share - p).abs() < 6e-3, "{share} of {p}");
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            assert!((mean - 1.0).abs() < 0.03, "{mean}");
        }
    }

    #[test]
    fn draws_differ_and_are_the_same_again() {
        let device = Device::default();
        let values = |draw| -> Vec<f32> {
            mask([40, 7], 0.3, draw, &device).into_data().try_into_vec().expect("floats")
        };
        assert_eq!(values(mix(1, 2)), values(mix(1, 2)));
        assert_ne!(values(mix(1, 2)), values(mix(1, 3)));
        assert_ne!(values(mix(1, 2)), values(mix(2, 2)));
    }
}
