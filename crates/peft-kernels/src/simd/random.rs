//! Random numbers that are a function of a key and of a place: Philox 4x32 (Salmon et al. 2011,
//! "Parallel random numbers: as easy as 1, 2, 3"), in 7 rounds, the fewest that pass the paper's
//! tests.

use pulp::Simd;

/// Places of a row that are drawn together.
pub(crate) const GROUP: usize = 64;

const ROUNDS: usize = 7;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What is drawn, by the place of a number in rows: the same at every width of registers.
///
/// The `n`-th of the four words of the counter `(16 g + l, row, 0, 0)` belongs to the place
/// `64 g + 16 n + l`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    key: [u32; 2],
}

impl Draw {
    /// The draw with this number.
    pub(crate) fn new(number: u64) -> Self {
        Self { key: [number as u32, (number >> 32) as u32] }
    }

    /// Four words for each of some columns of a row: those of the group `group`, from its `lane`-th
    /// on.
    #[inline(always)]
    pub(crate) fn words<S: Simd>(
        self,
        simd: S,
        row: u32,
        group: usize,
        lane: usize,
    ) -> [S::u32s; 4] {
        let first = (group * (GROUP / 4) + lane) as u32;
        let mut counter = [
            simd.add_u32s(simd.splat_u32s(first), numbers(simd)),
            simd.splat_u32s(row),
            simd.splat_u32s(0),
            simd.splat_u32s(0),
        ];
        let [mut key_0, mut key_1] = self.key;
        for _ in 0..ROUNDS {
            let (low_0, high_0) = product(simd, counter[0], MULTIPLIERS[0]);
            let (low_1, high_1) = product(simd, counter[2], MULTIPLIERS[1]);
            let mixed =
                |high, word, key| simd.xor_u32s(simd.xor_u32s(high, word), simd.splat_u32s(key));
            counter =
                [mixed(high_1, counter[1], key_0), low_1, mixed(high_0, counter[3], key_1), low_0];
            key_0 = key_0.wrapping_add(STEPS[0]);
            key_1 = key_1.wrapping_add(STEPS[1]);
        }
        counter
    }
}

/// 0, 1, 2 and so on.
#[inline(always)]
fn numbers<S: Simd>(simd: S) -> S::u32s {
    const NUMBERS: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    simd.partial_load_u32s(&NUMBERS[..S::U32_LANES])
}

#[inline(always)]
fn product<S: Simd>(simd: S, word: S::u32s, by: u32) -> (S::u32s, S::u32s) {
    simd.widening_mul_u32s(word, simd.splat_u32s(by))
}

/// Dropout: each number is zero with probability `p`, and `1 / (1 - p)` times itself otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mask {
    draw: Draw,
    /// Words below this drop their number.
    bound: u32,
    /// What is left is multiplied by this.
    kept: f32,
}

impl Mask {
    /// With the probability `p`, less than 1, of dropping a number.
    pub(crate) fn new(p: f64, draw: u64) -> Self {
        assert!((0.0..1.0).contains(&p), "a probability of dropping below 1, not {p}");
        let bound = (p * 4_294_967_296.0).round() as u32;
        Self { draw: Draw::new(draw), bound, kept: (1.0 / (1.0 - p)) as f32 }
    }

    /// What the numbers of a row are multiplied by.
    #[inline(always)]
    pub(crate) fn write<S: Simd>(self, simd: S, row: usize, factors: &mut [f32]) {
        self.each(simd, row, factors.len(), |place, factor| {
            let end = factors.len().min(place + S::F32_LANES);
            simd.partial_store_f32s(&mut factors[place..end], factor);
        });
    }

    /// Multiplies the numbers of a row.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, row: usize, values: &mut [f32]) {
        self.each(simd, row, values.len(), |place, factor| {
            let end = values.len().min(place + S::F32_LANES);
            let value = simd.partial_load_f32s(&values[place..end]);
            simd.partial_store_f32s(&mut values[place..end], simd.mul_f32s(value, factor));
        });
    }

    /// Calls `f` with the factors of as many columns as a register holds, from a column on.
    #[inline(always)]
    pub(crate) fn each<S: Simd>(
        self,
        simd: S,
        row: usize,
        columns: usize,
        mut f: impl FnMut(usize, S::f32s),
    ) {
        let (zero, kept) = (simd.splat_f32s(0.0), simd.splat_f32s(self.kept));
        let bound = simd.splat_u32s(self.bound);
        for group in 0..columns.div_ceil(GROUP) {
            let mut lane = 0;
            while lane < GROUP / 4 {
                let words = self.draw.words(simd, row as u32, group, lane);
                for (number, word) in words.into_iter().enumerate() {
                    let place = group * GROUP + number * (GROUP / 4) + lane;
                    if place < columns {
                        let dropped = simd.less_than_u32s(word, bound);
                        f(place, simd.select_f32s(dropped, zero, kept));
                    }
                }
                lane += S::U32_LANES;
            }
        }
    }
}
