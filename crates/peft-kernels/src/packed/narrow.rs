//! The product of rows with a narrow matrix: the first factor of a low-rank part.

use pulp::{Simd, WithSimd};

use crate::fused::{Shared, filled, grid};
use crate::linear::Inner;
use crate::matmul::{Panels, Source};
use crate::simd::run;

/// From as many rows on, the matrix is laid out for them.
const MANY: usize = 16;

/// `s x A`, `[rows, rank]`, for `x` of `[rows, d_in]` and `A` of `[d_in, rank]`.
pub(super) fn narrow(x: &[f32], a: &[f32], [rows, d_in, rank]: [usize; 3], scale: f32) -> Vec<f32> {
    assert!(x.len() == rows * d_in && a.len() == d_in * rank, "factors of one width");
    let all = |out: Shared| {
        if rows > MANY {
            let a = Panels::scaled(Source::new(a, [d_in, rank]), scale);
            grid(rows, 1, |rows, _| run(Inner { x, d_in, a: &a, mask: None, rows, out }));
            return;
        }
        for row in 0..rows {
            // SAFETY: nobody else has the rows.
            let out = unsafe { out.part(row * rank..(row + 1) * rank) };
            run(Row { x: &x[row * d_in..(row + 1) * d_in], a, scale, out });
        }
    };
    // SAFETY: all rows are written.
    unsafe { filled(rows * rank, all) }
}

/// One of a few.
struct Row<'a> {
    x: &'a [f32],
    a: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl WithSimd for Row<'_> {
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

impl Row<'_> {
    /// Some columns of the output.
    #[inline(always)]
    fn columns<const WIDE: usize>(&mut self, first: usize) {
        /// Sums that do not wait for each other.
        const APART: usize = 4;
        let (rank, d_in) = (self.out.len(), self.x.len());
        let mut sums = [[0.0_f32; WIDE]; APART];
        debug_assert!(first + WIDE <= rank && self.a.len() == d_in * rank);
        let mut place = 0;
        while place < d_in {
            let count = APART.min(d_in - place);
            for (number, sums) in sums[..count].iter_mut().enumerate() {
                let number = place + number;
                // SAFETY: the number and these columns of its row are there.
                let (x, a) = unsafe {
                    let a = self.a.as_ptr().add(number * rank + first).cast::<[f32; WIDE]>();
                    (*self.x.get_unchecked(number), a.read_unaligned())
                };
                for column in 0..WIDE {
                    sums[column] += x * a[column];
                }
            }
            place += APART;
        }
        for column in 0..WIDE {
            let mut sum = 0.0;
            for sums in &sums {
                sum += sums[column];
            }
            self.out[first + column] = self.scale * sum;
        }
    }
}
