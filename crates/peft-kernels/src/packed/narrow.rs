//! The product of rows with a narrow matrix: the first factor of a low-rank part.

use pulp::{Simd, WithSimd};

use crate::fused::{Shared, filled, grid};
use crate::linear::Inner;
use crate::matmul::{Panels, Source};
use crate::simd::run;

/// `s x A`, `[rows, rank]`, for `x` of `[rows, d_in]` and `A` of `[d_in, rank]`: of many rows.
pub(super) fn narrow_rows(
    x: &[f32],
    a: &[f32],
    [rows, d_in, rank]: [usize; 3],
    scale: f32,
) -> Vec<f32> {
    let a = Panels::scaled(Source::new(a, [d_in, rank]), scale);
    let all = |out: Shared| {
        grid(rows, 1, |rows, _| run(Inner { x, d_in, a: &a, mask: None, rows, out }));
    };
    // SAFETY: the tasks write all rows.
    unsafe { filled(rows * rank, all) }
}

/// The same of one row.
pub(super) struct NarrowRow<'a> {
    pub(super) x: &'a [f32],
    pub(super) a: &'a [f32],
    pub(super) scale: f32,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for NarrowRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _simd: S) {
        let mut first = 0;
        while first < self.out.len() {
            // Arrays of a known length become registers.
            let left = self.out.len() - first;
            if left >= 16 {
                self.columns::<16>(first);
                first += 16;
            } else if left >= 8 {
                self.columns::<8>(first);
                first += 8;
            } else {
                self.columns::<1>(first);
                first += 1;
            }
        }
    }
}

impl NarrowRow<'_> {
    /// Some columns of the output.
    #[inline(always)]
    fn columns<const WIDE: usize>(&mut self, first: usize) {
        /// Sums that do not wait for each other.
        const APART: usize = 8;
        let (rank, d_in) = (self.out.len(), self.x.len());
        let mut sums = [[0.0_f32; WIDE]; APART];
        assert!(first + WIDE <= rank && self.a.len() == d_in * rank, "columns of the matrix");
        let mut place = 0;
        while place + APART <= d_in {
            for (number, sums) in sums.iter_mut().enumerate() {
                self.add(sums, place + number, first);
            }
            place += APART;
        }
        while place < d_in {
            self.add(&mut sums[place % APART], place, first);
            place += 1;
        }
        for column in 0..WIDE {
            let mut sum = 0.0;
            for sums in &sums {
                sum += sums[column];
            }
            self.out[first + column] = self.scale * sum;
        }
    }

    /// Adds what a number of `x` makes of these columns; both are there.
    #[inline(always)]
    fn add<const WIDE: usize>(&self, sums: &mut [f32; WIDE], place: usize, first: usize) {
        let rank = self.out.len();
        debug_assert!(place < self.x.len() && place * rank + first + WIDE <= self.a.len());
        // SAFETY: the number and these columns of its row are there.
        let (x, a) = unsafe {
            let a = self.a.as_ptr().add(place * rank + first).cast::<[f32; WIDE]>();
            (*self.x.get_unchecked(place), a.read_unaligned())
        };
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum += x * a;
        }
    }
}
