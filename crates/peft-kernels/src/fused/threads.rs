//! Work over rows on all cores.

use std::ops::Range;

use rayon::prelude::*;

/// The rows that one task computes at a time: few enough that what it reads and writes stays in a
/// core's cache from one part of an operation to the next.
pub(crate) const BLOCK: usize = 64;

/// Runs `f` for blocks of rows, on all cores; where there are few rows, for parts of `columns` too.
pub(crate) fn grid(rows: usize, columns: usize, f: impl Fn(Range<usize>, Range<usize>) + Sync) {
    if rows == 0 || columns == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    let height = BLOCK.min(rows.div_ceil(threads).next_multiple_of(8));
    let high = rows.div_ceil(height);
    // As many tasks as keep all cores busy to the end.
    let wide = if high >= 2 * threads { 1 } else { columns.min((2 * threads).div_ceil(high)) };
    let width = columns.div_ceil(wide);
    let wide = columns.div_ceil(width);
    let part = |number: usize, size: usize, end: usize| number * size..end.min((number + 1) * size);
    // To hand a task to other threads takes longer than a short one.
    if high * wide == 1 {
        return f(0..rows, 0..columns);
    }
    (0..high * wide).into_par_iter().with_max_len(1).for_each(|task| {
        f(part(task / wide, height, rows), part(task % wide, width, columns));
    });
}

/// What `f` returns for chunks of rows, in their order. The chunks do not depend on the number of
/// cores, so that sums over them have the same bits on any.
pub(crate) fn chunks<T: Send>(rows: usize, f: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    /// At most.
    const CHUNKS: usize = 16;
    let size = rows.div_ceil(CHUNKS).next_multiple_of(BLOCK);
    let chunk = |number: usize| number * size..rows.min((number + 1) * size);
    (0..rows.div_ceil(size.max(1))).into_par_iter().with_max_len(1).map(|n| f(chunk(n))).collect()
}

/// The sums over chunks, of these sizes.
pub(crate) fn summed<const N: usize>(
    partial: Vec<[Vec<f32>; N]>,
    sizes: [usize; N],
) -> [Vec<f32>; N] {
    let mut partial = partial.into_iter();
    let mut sums = partial.next().unwrap_or_else(|| sizes.map(|size| vec![0.0; size]));
    for chunk in partial {
        for (sums, chunk) in sums.iter_mut().zip(chunk) {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value;
            }
        }
    }
    sums
}

/// A slice that tasks write to, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: a pointer to numbers; who uses it says that nobody else uses the same part.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// All of these numbers.
    pub(crate) fn of(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// Where a part of it begins, of which other tasks may have other columns.
    pub(crate) fn pointer(self, range: Range<usize>) -> *mut f32 {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        self.start.wrapping_add(range.start)
    }

    /// A part of it that is written.
    ///
    /// # Safety
    /// The slice is still there, the part has numbers, and no task writes them any more.
    pub(crate) unsafe fn written<'a>(self, range: Range<usize>) -> &'a [f32] {
        // SAFETY: within the slice, as `pointer` checks, and as the caller says.
        unsafe { std::slice::from_raw_parts(self.pointer(range.clone()), range.len()) }
    }

    /// A part of it.
    ///
    /// # Safety
    /// The slice is still there, the part has numbers or only gets them, and no other task has it.
    pub(crate) unsafe fn part<'a>(self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, and as the caller says.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Numbers that `fill` writes, all of them.
///
/// # Safety
/// `fill` writes every number.
pub(crate) unsafe fn filled(len: usize, fill: impl FnOnce(Shared)) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    fill(Shared { start: values.as_mut_ptr(), len });
    // SAFETY: there is room, and `fill` has written every number.
    unsafe { values.set_len(len) };
    values
}
