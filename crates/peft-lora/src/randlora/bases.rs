//! The random bases of RandLoRA, as HF PEFT makes them from a seed.

use peft_core::{TorchRandom, bf16};

/// The shapes of the bases of a model: `A` is `[r, smaller]` and `B` `[larger, count, r]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bases {
    pub(super) rank: usize,
    /// The smaller of the largest `d_in` and `d_out`.
    pub(super) smaller: usize,
    /// The larger.
    pub(super) larger: usize,
    /// How many bases there are: as many as make up full rank.
    pub(super) count: usize,
}

/// Which numbers the bases have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Uniform ones, of bf16.
    Dense,
    /// `-1`, 0 and 1 before they are scaled; one in so many is not 0 (Achlioptas 2003).
    Sparse(f64),
}

impl Bases {
    pub(super) fn new(rank: usize, [d_in, d_out]: [usize; 2]) -> Self {
        let (smaller, larger) = (d_in.min(d_out), d_in.max(d_out));
        Self { rank, smaller, larger, count: smaller.div_ceil(rank) }
    }

    /// The number of values of both.
    pub(super) fn num_values(self) -> f64 {
        let Self { rank, smaller, larger, count } = self;
        rank as f64 * (smaller as f64 + larger as f64 * count as f64)
    }

    /// The values of `A` and `B`, each with a deviation of one.
    pub(super) fn draw(self, seed: u64, kind: Kind) -> [Vec<f32>; 2] {
        let mut random = TorchRandom::new(seed);
        match kind {
            Kind::Dense => self.dense(&mut random),
            Kind::Sparse(sparsity) => {
                let Self { rank, smaller, larger, count } = self;
                [rank * smaller, larger * count * rank].map(|size| {
                    let edge = (1.0 / (2.0 * sparsity)) as f32;
                    let far = (1.0 - 1.0 / (2.0 * sparsity)) as f32;
                    let drawn = random.uniform(size, 0.0, 1.0);
                    let sign = |x: f32| f32::from(x > far) - f32::from(x < edge);
                    let signs: Vec<f32> = drawn.into_iter().map(sign).collect();
                    let deviation = deviation(&signs);
                    signs.into_iter().map(|sign| sign / deviation).collect()
                })
            }
        }
    }

    fn dense(self, random: &mut TorchRandom) -> [Vec<f32>; 2] {
        let Self { rank, smaller, larger, count } = self;
        // Kaiming-uniform with a = sqrt(5).
        let bound = |fan_in: usize| {
            let gain = (2.0f64 / 6.0).sqrt();
            3f64.sqrt() * (gain / (fan_in as f64).sqrt())
        };
        let mut drawn =
            |size: usize, fan_in: usize| random.uniform_bf16(size, -bound(fan_in), bound(fan_in));
        let a = drawn(rank * smaller, smaller);
        // One base after another, laid side by side.
        let pieces: Vec<Vec<f32>> = (0..count).map(|_| drawn(larger * rank, rank)).collect();
        let rows = (0..larger).flat_map(|row| {
            pieces.iter().flat_map(move |piece| piece[row * rank..(row + 1) * rank].iter().copied())
        });
        [a, rows.collect()].map(|values: Vec<f32>| {
            let deviation = bf16(deviation(&values));
            values.into_iter().map(|value| bf16(value / deviation)).collect()
        })
    }
}

/// The standard deviation of a sample.
fn deviation(values: &[f32]) -> f32 {
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    (squares / (count - 1.0)).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HF PEFT 0.21.2 over layers [16, 24] and [16, 10], with r = 3 and projection_prng_key = 7.
    #[test]
    fn bases_are_those_of_the_reference() {
        let bases = Bases::new(3, [16, 24]);
        assert_eq!(bases.count, 6);
        let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
        let [a, b] = bases.draw(7, Kind::Dense);
        assert_eq!(a[..4], [0.644_531_25, 0.929_687_5, -1.414_062_5, 1.617_187_5]);
        let expected =
            [-1.664_062_5, 1.476_562_5, 0.120_605_47, -0.053_710_938, -1.453_125, -1.007_812_5];
        assert_eq!(b[..6], expected);
        assert_eq!((sum(&a), sum(&b)), (-0.5078125, 11.38232421875));

        for (sparsity, sums) in [
            (3.0, (12.263767719268799, -17.817184925079346)),
            (4.0, (6.928203105926514, -7.919092178344727)),
        ] {
            let [a, b] = bases.draw(7, Kind::Sparse(sparsity));
            let near = |ours: f64, theirs: f64| (ours - theirs).abs() < 1e-4;
            assert!(near(sum(&a), sums.0) && near(sum(&b), sums.1), "{sparsity}");
        }
    }
}
