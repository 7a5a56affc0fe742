//! A random matrix that is a product of diagonals, a permutation and transforms.

use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_core::TorchRandom;

use crate::walsh_hadamard;

/// What all blocks of a Fastfood matrix (Le, Sarlós and Smola 2013) begin with: `Π H B`, for vectors of `d`
/// values.
///
/// It is made of a generator's numbers; the crate's documentation says of which.
#[derive(Debug, Clone)]
pub struct Fastfood {
    /// The diagonal of `B`, `[1, d]`; what it is padded with is zero.
    signs: Tensor<2>,
    /// `Π`, `[n]`: which value comes to each place.
    permutation: Tensor<1, Int>,
}

impl Fastfood {
    /// For vectors of `d` values, on `device`.
    ///
    /// # Panics
    /// If `d` is 0.
    pub fn new(d: usize, random: &mut TorchRandom, device: &Device) -> Self {
        assert!(d > 0, "a vector of no values");
        let device = device.clone().without_autodiff();
        let n = d.next_power_of_two();
        let sign = |_| if random.draw() & 1 == 0 { 1.0f32 } else { -1.0 };
        let signs: Vec<f32> = (0..n).map(sign).collect();
        let signs = TensorData::new(signs[..d].to_vec(), [1, d]);
        let mut permutation: Vec<i64> = (0..n as i64).collect();
        for last in (1..n).rev() {
            permutation.swap(last, random.draw() as usize % (last + 1));
        }
        let signs = Tensor::from_data(signs, &device);
        let permutation = Tensor::from_data(TensorData::new(permutation, [n]), &device);
        Self { signs, permutation }
    }

    /// The size `n` of a block, a power of two.
    pub fn size(&self) -> usize {
        self.permutation.dims()[0]
    }

    /// `u = Π H B θ`, `[1, n]`, of `θ`, `[d]`.
    pub fn mixed(&self, theta: Tensor<1>) -> Tensor<2> {
        let ([_, d], n) = (self.signs.dims(), self.size());
        let device = theta.device().without_autodiff();
        let signed = theta.unsqueeze::<2>() * self.signs.clone().to_device(&device);
        let padded = match n - d {
            0 => signed,
            missing => Tensor::cat(vec![signed, Tensor::zeros([1, missing], &device)], 1),
        };
        walsh_hadamard(padded).select(1, self.permutation.clone().to_device(&device))
    }
}

/// The blocks of a Fastfood matrix that make a vector of so many values: `s H G` over what all blocks
/// [begin with](Fastfood::mixed).
#[derive(Debug, Clone)]
pub struct FastfoodBlocks {
    /// The diagonals `G`, `[blocks, n]`.
    diagonals: Tensor<2>,
    /// How many values are made.
    count: usize,
}

impl FastfoodBlocks {
    /// For `count` values, on `device`.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn new(
        fastfood: &Fastfood,
        count: usize,
        random: &mut TorchRandom,
        device: &Device,
    ) -> Self {
        assert!(count > 0, "a matrix without rows");
        let device = device.clone().without_autodiff();
        let n = fastfood.size();
        let blocks = count.div_ceil(n);
        let values: Vec<f32> = (0..blocks * n).map(|_| near_normal(random)).collect();
        let diagonals = Tensor::from_data(TensorData::new(values, [blocks, n]), &device);
        Self { diagonals, count }
    }

    /// `s H G u`, `[count]`, from `u`, `[1, n]`; `s = 1 / √(count n)`.
    pub fn spread(&self, mixed: Tensor<2>) -> Tensor<1> {
        let [blocks, n] = self.diagonals.dims();
        let device = mixed.device().without_autodiff();
        let scale = 1.0 / (self.count as f64 * n as f64).sqrt();
        let scaled = self.diagonals.clone().to_device(&device) * (mixed * scale);
        walsh_hadamard(scaled).reshape([blocks * n]).narrow(0, 0, self.count)
    }
}

/// A number of mean 0 and variance 1, near the normal distribution: the sum of twelve that are uniform
/// (Irwin and Hall), each 16 bits, in whole numbers.
fn near_normal(random: &mut TorchRandom) -> f32 {
    let halves = |bits: u32| (bits & 0xffff) + (bits >> 16);
    let sum: u32 = (0..6).map(|_| halves(random.draw())).sum();
    // Twice the sum less twice its mean, 12 · (2^16 - 1) / 2: exact.
    (2 * i64::from(sum) - 12 * 0xffff) as f32 / (1u32 << 17) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("floats")
    }

    /// `M`, `[count, d]`, column by column.
    fn explicit(fastfood: &Fastfood, blocks: &FastfoodBlocks, d: usize) -> Tensor<2> {
        let device = Device::default();
        let column = |at: usize| {
            let mut unit = vec![0.0f32; d];
            unit[at] = 1.0;
            let unit = Tensor::from_data(TensorData::new(unit, [d]), &device);
            blocks.spread(fastfood.mixed(unit)).unsqueeze_dim::<2>(1)
        };
        Tensor::cat((0..d).map(column).collect(), 1)
    }

    fn made(d: usize, count: usize, seed: u64) -> (Fastfood, FastfoodBlocks) {
        let (device, mut random) = (Device::default(), TorchRandom::new(seed));
        let fastfood = Fastfood::new(d, &mut random, &device);
        let blocks = FastfoodBlocks::new(&fastfood, count, &mut random, &device);
        (fastfood, blocks)
    }

    #[test]
    fn the_numbers_of_a_seed_are_the_same_everywhere() {
        let mut random = TorchRandom::new(777);
        let bits: Vec<u32> = (0..4).map(|_| near_normal(&mut random).to_bits()).collect();
        assert_eq!(bits, EXPECTED);
        let mut random = TorchRandom::new(1);
        let drawn: Vec<f64> = (0..40_000).map(|_| f64::from(near_normal(&mut random))).collect();
        let mean = drawn.iter().sum::<f64>() / 40_000.0;
        let variance = drawn.iter().map(|x| x * x).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean}, {variance}");
    }

    /// From the numbers of NumPy's Mersenne Twister with this seed, six for each.
    const EXPECTED: [u32; 4] = [0xbda2_f800, 0x3ee1_2600, 0x3da9_e000, 0xbffe_c400];

    #[test]
    fn with_signs_it_is_orthogonal_and_with_its_own_diagonals_on_average() {
        let (d, count) = (24, 5 * 32);
        let (fastfood, mut blocks) = made(d, count, 3);
        let m = explicit(&fastfood, &blocks, d);
        let norms = values(m.clone().square().sum_dim(0));
        assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 0.25), "{norms:?}");
        blocks.diagonals = blocks.diagonals.sign();
        let m = explicit(&fastfood, &blocks, d);
        let gram = m.clone().transpose().matmul(m);
        let distance = gram - Tensor::eye(d, &Device::default());
        assert!(distance.abs().max().into_scalar::<f32>() < 1e-5);
    }

    #[test]
    fn the_gradient_is_that_of_the_explicit_matrix() {
        // Neither a power of two, nor a whole number of blocks.
        for (d, count) in [(1, 3), (13, 100), (16, 16), (33, 70)] {
            let (fastfood, blocks) = made(d, count, 11);
            let m = explicit(&fastfood, &blocks, d);
            let device = Device::default();
            let number = |i: usize| ((5 * i + 2) % 7) as f32 * 0.3 - 0.8;
            let vector = |size: usize| {
                let values: Vec<f32> = (0..size).map(number).collect();
                Tensor::<1>::from_data(TensorData::new(values, [size]), &device)
            };
            let theta = Tensor::<1>::from_data(vector(d).into_data(), &device.clone().autodiff());
            let theta = theta.require_grad();
            let made = blocks.spread(fastfood.mixed(theta.clone()));
            let weights = Tensor::from_data(vector(count).into_data(), &device.clone().autodiff());
            let gradients = (made.clone() * weights).sum().backward();
            let close = |found: Tensor<1>, expected: Tensor<2>| {
                let distance = found - expected.squeeze_dim(1);
                assert!(distance.abs().max().into_scalar::<f32>() < 1e-5, "{d} to {count}");
            };
            close(made.inner(), m.clone().matmul(vector(d).unsqueeze_dim(1)));
            let found = theta.grad(&gradients).expect("it is trained");
            close(found, m.transpose().matmul(vector(count).unsqueeze_dim(1)));
        }
    }

    /// `h_i G Π H B` is `h_i G` turned by what is orthogonal but for its scale, whatever the row.
    #[test]
    fn without_padding_all_rows_of_a_block_are_of_one_length() {
        let (fastfood, blocks) = made(16, 48, 5);
        let lengths = values(explicit(&fastfood, &blocks, 16).square().sum_dim(1));
        for block in lengths.chunks(16) {
            assert!(block.iter().all(|l| (l / block[0] - 1.0).abs() < 1e-4), "{block:?}");
        }
        assert!((lengths[0] / lengths[16] - 1.0).abs() > 1e-2, "each block has its own");
    }

    /// No matrix of `count · d` numbers is held.
    #[test]
    fn what_is_held_grows_as_what_is_made() {
        for (d, count) in [(100, 5000), (100, 50_000), (1000, 50_000)] {
            let (fastfood, blocks) = made(d, count, 1);
            let [rows, n] = blocks.diagonals.dims();
            assert_eq!(n, fastfood.size());
            assert!(rows * n < count + n && rows * n >= count, "{d} to {count}");
        }
    }
}
