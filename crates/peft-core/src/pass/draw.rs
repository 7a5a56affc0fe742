//! Seeds of what is random: functions of the run's seed, the step and the number of the draw.

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
