//! The random places that PyTorch would choose.

use std::collections::HashMap;

/// The first `count` numbers of `torch.randperm(size)` with a generator of this seed: places that HF
/// PEFT draws, and leaves out of its files.
pub fn torch_permutation(size: usize, seed: u64, count: usize) -> Vec<usize> {
    let mut random = Mersenne::new(seed as u32);
    // What has been moved; everything else is where it began.
    let mut moved: HashMap<usize, usize> = HashMap::new();
    let mut chosen = Vec::with_capacity(count.min(size));
    for place in 0..count.min(size) {
        let drawn = match size < u32::MAX as usize / 20 {
            true => u64::from(random.next()),
            false => u64::from(random.next()) << 32 | u64::from(random.next()),
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

/// MT19937 (Matsumoto and Nishimura 1998), PyTorch's generator on the CPU.
struct Mersenne {
    state: Vec<u32>,
    next: usize,
}

const LENGTH: usize = 624;

impl Mersenne {
    fn new(seed: u32) -> Self {
        let mut state = vec![seed; LENGTH];
        for i in 1..LENGTH {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: LENGTH }
    }

    fn next(&mut self) -> u32 {
        if self.next == LENGTH {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for i in 0..LENGTH {
            let upper = self.state[i] & 0x8000_0000;
            let y = upper | (self.state[(i + 1) % LENGTH] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % LENGTH] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
