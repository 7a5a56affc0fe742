//! The random numbers of PyTorch's generator on the CPU, from which HF PEFT makes again what it does not
//! save.

use std::collections::HashMap;

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), and PyTorch's distributions over it.
#[derive(Debug, Clone)]
pub struct TorchRandom {
    state: [u32; SIZE],
    next: usize,
}

const SIZE: usize = 624;
const SHIFT: usize = 397;

impl TorchRandom {
    /// As `torch.Generator().manual_seed(seed)`, which takes 32 bits of the seed.
    pub fn new(seed: u64) -> Self {
        let mut state = [seed as u32; SIZE];
        for i in 1..SIZE {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: SIZE }
    }

    /// The next 32 bits, which are the same on every platform.
    pub fn draw(&mut self) -> u32 {
        if self.next == SIZE {
            self.turn();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn turn(&mut self) {
        for i in 0..SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % SIZE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// `torch.empty(count).uniform_(from, to)`: 24 bits of each draw.
    pub fn uniform(&mut self, count: usize, from: f64, to: f64) -> Vec<f32> {
        let (from, to) = (from as f32, to as f32);
        let width = f64::from(to - from);
        let mut one = || {
            let share = f64::from(self.draw() & ((1 << 24) - 1)) / f64::from(1 << 24);
            (share * width + f64::from(from)) as f32
        };
        (0..count).map(|_| one()).collect()
    }

    /// The same in bf16, whose 8 bits are drawn and which every result is rounded to.
    pub fn uniform_bf16(&mut self, count: usize, from: f64, to: f64) -> Vec<f32> {
        let (from, to) = (bf16(from as f32), bf16(to as f32));
        let width = bf16(to - from);
        let mut one = || {
            let share = (self.draw() & 0xff) as f32 / 256.0;
            bf16(share * width + from)
        };
        (0..count).map(|_| one()).collect()
    }
}

/// The nearest number of bf16, the even one of two.
pub fn bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    f32::from_bits(rounded & 0xffff_0000)
}

/// The first `count` numbers of `torch.randperm(size)` with a generator of this seed: places that HF
/// PEFT draws, and leaves out of its files.
pub fn torch_permutation(size: usize, seed: u64, count: usize) -> Vec<usize> {
    let mut random = TorchRandom::new(seed);
    // What has been moved; everything else is where it began.
    let mut moved: HashMap<usize, usize> = HashMap::new();
    let mut chosen = Vec::with_capacity(count.min(size));
    for place in 0..count.min(size) {
        let drawn = match size < u32::MAX as usize / 20 {
            true => u64::from(random.draw()),
            false => u64::from(random.draw()) << 32 | u64::from(random.draw()),
        };
        // The last one has nothing to change places with.
        let other = place + (drawn % (size - place) as u64) as usize;
        let here = moved.get(&place).copied().unwrap_or(place);
        let there = moved.get(&other).copied().unwrap_or(other);
        moved.insert(other, here);
        chosen.push(there);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draws_are_those_of_the_reference_implementation() {
        let mut random = TorchRandom::new(5489);
        let first: Vec<u32> = (0..5).map(|_| random.draw()).collect();
        assert_eq!(first, [3_499_211_612, 581_869_302, 3_890_346_734, 3_586_334_585, 545_404_204]);
        // The ten thousandth of the C++ standard's mt19937.
        let last = (5..10_000).map(|_| random.draw()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn uniform_values_are_pytorchs() {
        let bits: Vec<u32> =
            TorchRandom::new(7).uniform(5, -0.5773, 0.5773).into_iter().map(f32::to_bits).collect();
        // torch.empty(5).uniform_(-0.5773, 0.5773, generator=torch.Generator().manual_seed(7))
        let expected = [0.040_321_566, -0.347_761_84, 0.183_825_82, 0.181_145_52, -0.308_553_52];
        assert_eq!(bits, expected.map(f32::to_bits));
        // The same with dtype=torch.bfloat16.
        let values = TorchRandom::new(7).uniform_bf16(4, -0.5773, 0.5773);
        assert_eq!(values, [0.211_914_06, 0.306_640_63, -0.464_843_75, 0.531_25]);
    }

    #[test]
    fn places_are_those_of_pytorch() {
        // torch.randperm(size, generator=torch.Generator().manual_seed(777)), torch 2.
        let cases = [
            (2048, [103, 1405, 1251, 2031, 803, 1141, 1473, 41]),
            (768 * 768, [391_271, 183_699, 413_551, 384_200, 435_559, 59_955, 374_469, 198_662]),
            (40_000, [5735, 29_973, 36_705, 17_343, 31_023, 33_007, 21_437, 34_637]),
        ];
        for (size, expected) in cases {
            assert_eq!(torch_permutation(size, 777, 8), expected);
        }
        let mut all = torch_permutation(100, 3, 100);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
