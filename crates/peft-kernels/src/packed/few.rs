//! Products of a few rows with a packed matrix that lies the other way round: every block is read
//! once, unpacked into a core's first cache, and multiplied with all rows.
//!
//! The numbers are those that unpacking the whole matrix gives, and each sum is in the same order
//! whatever the number of rows.

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::PackedTensor;
use crate::fused::Shared;

/// Numbers that are unpacked at a time.
const UNPACKED: usize = 8192;

/// Of wide rows only a part at a time, whole blocks of every format: what is left of [`UNPACKED`]
/// for each of the outputs that are computed together.
const CHUNK: usize = 1024;

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = RefCell::new(vec![0.0; UNPACKED]);
}

/// `x Pᵀ`: some columns of the output.
pub(super) struct Few<'a> {
    /// `[rows, d_in]`.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    /// `P`, `[d_out, d_in]`.
    pub(super) weight: &'a PackedTensor,
    pub(super) outputs: Range<usize>,
    /// `[rows, d_out]`.
    pub(super) out: Shared,
}

impl Few<'_> {
    /// Computes them.
    pub(super) fn run(self) {
        let [d_out, d_in] = [self.weight.shape()[0], self.weight.shape()[1]];
        assert_eq!(self.x.len(), self.rows * d_in, "rows as wide as the weight");
        BUFFER.with_borrow_mut(|buffer| {
            if d_in * 8 > UNPACKED {
                return self.wide(buffer, d_out, d_in);
            }
            let step = UNPACKED / d_in.max(1) / 8 * 8;
            for first in self.outputs.clone().step_by(step) {
                let outputs = first..self.outputs.end.min(first + step);
                let weights = &mut buffer[..outputs.len() * d_in];
                self.weight.unpack_part(first, 0..outputs.len() * d_in, weights);
                let sums = Sums {
                    weights,
                    x: self.x,
                    distance: d_in,
                    length: d_in,
                    rows: self.rows,
                    outputs: outputs.len(),
                    out: self.out,
                    place: first,
                    d_out,
                    adds: false,
                };
                crate::simd::run(sums);
            }
        });
    }

    /// Of rows so wide that only parts of them are unpacked together.
    fn wide(&self, buffer: &mut [f32], d_out: usize, d_in: usize) {
        for first in self.outputs.clone().step_by(8) {
            let outputs = first..self.outputs.end.min(first + 8);
            for place in (0..d_in).step_by(CHUNK) {
                let columns = place..d_in.min(place + CHUNK);
                let length = columns.len();
                for (output, to) in outputs.clone().zip(buffer.chunks_mut(length)) {
                    self.weight.unpack_part(output, columns.clone(), to);
                }
                let sums = Sums {
                    weights: &buffer[..outputs.len() * length],
                    x: &self.x[place..],
                    distance: d_in,
                    length,
                    rows: self.rows,
                    outputs: outputs.len(),
                    out: self.out,
                    place: first,
                    d_out,
                    adds: place > 0,
                };
                crate::simd::run(sums);
            }
        }
    }
}

/// The product of each row of some weights with each of `x`.
struct Sums<'a> {
    /// `[outputs, length]`.
    weights: &'a [f32],
    /// `[rows, length]`, from one row to the next `distance`.
    x: &'a [f32],
    distance: usize,
    length: usize,
    rows: usize,
    outputs: usize,
    out: Shared,
    /// The first output.
    place: usize,
    d_out: usize,
    /// Whether they are added to what is there.
    adds: bool,
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        debug_assert_eq!(self.weights.len(), self.outputs * self.length);
        debug_assert!((self.rows - 1) * self.distance + self.length <= self.x.len());
        // As many sums as registers hold.
        let most = if S::F32_LANES == 16 { 8 } else { 4 };
        let mut row = 0;
        while row < self.rows {
            let rows = most.min(self.rows - row);
            let mut output = 0;
            while output < self.outputs {
                let left = self.outputs - output;
                macro_rules! tile {
                    ($rows:literal, $outputs:literal) => {
                        if left >= $outputs {
                            // SAFETY: there are as many rows and outputs left.
                            unsafe { self.tile::<S, $rows, $outputs>(simd, row, output) };
                            output += $outputs;
                        } else {
                            // SAFETY: as above.
                            unsafe { self.tile::<S, $rows, 1>(simd, row, output) };
                            output += 1;
                        }
                    };
                }
                if most == 8 {
                    match rows {
                        1 => tile!(1, 8),
                        2 => tile!(2, 8),
                        3 => tile!(3, 4),
                        4 => tile!(4, 4),
                        5 => tile!(5, 4),
                        6 => tile!(6, 4),
                        7 => tile!(7, 2),
                        _ => tile!(8, 2),
                    }
                } else {
                    match rows {
                        1 => tile!(1, 4),
                        2 => tile!(2, 4),
                        3 => tile!(3, 2),
                        _ => tile!(4, 2),
                    }
                }
            }
            row += rows;
        }
    }
}

impl Sums<'_> {
    /// Those of a few rows and outputs.
    ///
    /// Plain loops over arrays, without closures: what is not inlined whole is not held in
    /// registers.
    ///
    /// # Safety
    /// There are as many rows and outputs from these on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const OUTPUTS: usize>(
        &self,
        simd: S,
        row: usize,
        output: usize,
    ) {
        let &Self { length, distance, .. } = self;
        // SAFETY: the first of these outputs and rows are there.
        let (weights, x) = unsafe {
            (self.weights.as_ptr().add(output * length), self.x.as_ptr().add(row * distance))
        };
        let mut lanes = [[simd.splat_f32s(0.0); ROWS]; OUTPUTS];
        let mut place = 0;
        while place + S::F32_LANES <= length {
            let mut numbers = [simd.splat_f32s(0.0); ROWS];
            for (row, numbers) in numbers.iter_mut().enumerate() {
                // SAFETY: the whole register lies within the row.
                *numbers =
                    unsafe { x.add(row * distance + place).cast::<S::f32s>().read_unaligned() };
            }
            for (output, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: as above.
                let weight = unsafe {
                    weights.add(output * length + place).cast::<S::f32s>().read_unaligned()
                };
                for row in 0..ROWS {
                    lanes[row] = simd.mul_add_e_f32s(weight, numbers[row], lanes[row]);
                }
            }
            place += S::F32_LANES;
        }
        if place < length {
            let left = length - place;
            for (output, lanes) in lanes.iter_mut().enumerate() {
                for (row, lanes) in lanes.iter_mut().enumerate() {
                    // SAFETY: as many numbers of each row are left.
                    let [weight, number] = unsafe {
                        [weights.add(output * length + place), x.add(row * distance + place)]
                            .map(|start| std::slice::from_raw_parts(start, left))
                    };
                    let weight = simd.partial_load_f32s(weight);
                    *lanes = simd.mul_add_e_f32s(weight, simd.partial_load_f32s(number), *lanes);
                }
            }
        }
        #[expect(clippy::needless_range_loop, reason = "the inner index of two")]
        for number in 0..ROWS {
            let from = (row + number) * self.d_out + self.place + output;
            // SAFETY: these columns are this task's.
            let out = unsafe { self.out.part(from..from + OUTPUTS) };
            for output in 0..OUTPUTS {
                let sum = simd.reduce_sum_f32s(lanes[output][number]);
                out[output] = if self.adds { out[output] + sum } else { sum };
            }
        }
    }
}
