//! The Walsh-Hadamard transform.

use burn::tensor::{Device, Tensor, TensorData};

/// Values that are transformed in one product: a factor of the transform is a matrix of at most this
/// size.
const LARGEST: usize = 32;

/// `x H` for each row of `[rows, n]`, `n` a power of two, where `H[i, j]` is -1 if `i` and `j` have an odd
/// number of bits in common, and 1 otherwise; `H H = n I`.
///
/// `H` is the Kronecker product of transforms of at most 32 values, and each of these is one product over
/// all values: `32 n log n / 5` multiplications, not `n²`.
///
/// # Panics
/// If `n` is no power of two.
pub fn walsh_hadamard(x: Tensor<2>) -> Tensor<2> {
    let [rows, n] = x.dims();
    assert!(n.is_power_of_two(), "a transform of {n} values");
    let device = x.device().without_autodiff();
    factors(n).into_iter().fold(x, |x, size| {
        // The last part of the places is transformed, and becomes the first one: after all factors each
        // part is where it was.
        let turned = x.reshape([rows * n / size, size]).matmul(matrix(size, &device));
        turned.reshape([rows, n / size, size]).swap_dims(1, 2).reshape([rows, n])
    })
}

/// Sizes of transforms whose Kronecker product has the size `n`.
fn factors(n: usize) -> Vec<usize> {
    let mut left = n;
    let mut factors = Vec::new();
    while left > 1 {
        let factor = left.min(LARGEST);
        factors.push(factor);
        left /= factor;
    }
    factors
}

/// `H`, `[size, size]`.
fn matrix(size: usize, device: &Device) -> Tensor<2> {
    let entry = |place: usize| match ((place / size) & (place % size)).count_ones() % 2 {
        0 => 1.0f32,
        _ => -1.0,
    };
    let values: Vec<f32> = (0..size * size).map(entry).collect();
    Tensor::from_data(TensorData::new(values, [size, size]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_product_with_the_matrix_and_its_own_inverse() {
        let device = Device::default();
        for n in [1, 2, 16, 32, 64, 512, 2048] {
            let values = (0..3 * n).map(|i| ((7 * i + 3) % 11) as f32 - 5.0).collect::<Vec<f32>>();
            let x = Tensor::<2>::from_data(TensorData::new(values, [3, n]), &device);
            let found = walsh_hadamard(x.clone());
            let expected = x.clone().matmul(matrix(n, &device));
            // Whole numbers: exact.
            assert_eq!((found.clone() - expected).abs().max().into_scalar::<f32>(), 0.0, "{n}");
            let back = walsh_hadamard(found) / n as f64;
            assert_eq!((back - x).abs().max().into_scalar::<f32>(), 0.0, "{n}");
        }
    }

    /// Multiplications for each value grow as the logarithm.
    #[test]
    fn the_cost_of_a_value_grows_as_the_logarithm_of_their_number() {
        let cost = |n: usize| factors(n).iter().sum::<usize>();
        for log in 1..=40 {
            let n = 1usize << log;
            assert_eq!(factors(n).iter().product::<usize>(), n);
            assert!(factors(n).iter().all(|factor| *factor <= LARGEST));
            assert!(cost(n) <= LARGEST * usize::div_ceil(log, 5), "{n}: {}", cost(n));
        }
        // Five times the logarithm, five times the cost.
        assert_eq!(cost(1 << 40), 8 * cost(1 << 5));
    }
}
