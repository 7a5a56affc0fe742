//! The same row by row, with a backward pass of its own.

use std::ops::Range;

use burn::tensor::{Int, Tensor};
use pulp::{Simd, WithSimd};

use crate::fused::{Array, Operation, Saved, Shared, apply, filled, grid, matrix, numbers, output};
use crate::simd::{Lanes, exp, run};

/// Numbers that are summed in f32; the sums of so many are summed in f64.
const TOGETHER: usize = 1024;

pub(super) fn cross_entropy(logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
    let [_, count] = logits.dims();
    let one_of = |class: i64| {
        let class = usize::try_from(class).ok().filter(|class| *class < count);
        class.expect("one of the classes")
    };
    let classes = classes.into_data().iter().map(one_of).collect();
    apply(CrossEntropy { classes }, [logits.into_dispatch()])
}

#[derive(Debug)]
struct CrossEntropy {
    /// That of each row.
    classes: Vec<usize>,
}

impl Operation for CrossEntropy {
    fn names(&self) -> [&'static str; 2] {
        ["cross entropy", "cross entropy, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (logits, [rows, classes]) = matrix(&inputs[0]);
        // SAFETY: every task writes its rows.
        let logs = unsafe {
            filled(rows, |logs| {
                grid(rows, 1, |rows, _| {
                    run(Forward { logits: numbers(&logits), classes, rows, logs });
                });
            })
        };
        let of_row = |(row, class): (usize, &usize)| {
            f64::from(logs[row]) - f64::from(numbers(&logits)[row * classes + class])
        };
        let sum: f64 = self.classes.iter().enumerate().map(of_row).sum();
        let mean = (sum / rows as f64) as f32;
        (output(vec![mean], [1]), vec![output(logs, [rows])])
    }

    fn needs(&self, _input: usize) -> bool {
        true
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        if !wanted[0] {
            return vec![None];
        }
        let (logits, [rows, classes]) = matrix(saved.input(0));
        let share = numbers(&gradient.to_contiguous())[0] / rows as f32;
        // SAFETY: every task writes its rows.
        let of_logits = unsafe {
            filled(rows * classes, |of_logits| {
                grid(rows, 1, |rows, _| {
                    let logs = numbers(&saved.values[0]);
                    let chosen = &self.classes;
                    let logits = numbers(&logits);
                    run(Backward { logits, classes, logs, chosen, share, rows, of_logits });
                });
            })
        };
        vec![Some(output(of_logits, [rows, classes]))]
    }
}

/// `log Σ exp(z)` of some rows.
struct Forward<'a> {
    logits: &'a [f32],
    classes: usize,
    rows: Range<usize>,
    logs: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { logits, classes, rows, logs } = self;
        // SAFETY: these rows are this task's.
        let logs = unsafe { logs.part(rows.clone()) };
        for (row, log) in rows.zip(logs) {
            let z = &logits[row * classes..(row + 1) * classes];
            let (whole, rest) = z.split_at(z.len() / S::F32_LANES * S::F32_LANES);
            let mut most = Lanes::splat(simd, f32::NEG_INFINITY);
            for part in whole.chunks(S::F32_LANES) {
                most = Lanes::load(simd, part).max(most);
            }
            let mut largest = most.largest();
            for number in rest {
                largest = largest.max(*number);
            }
            let most = Lanes::splat(simd, largest);
            let mut sum = 0.0_f64;
            for part in whole.chunks(TOGETHER) {
                let mut sums = Lanes::splat(simd, 0.0);
                for part in part.chunks(S::F32_LANES) {
                    sums = sums + exp(Lanes::load(simd, part) - most);
                }
                sum += f64::from(sums.sum());
            }
            for number in rest {
                sum += f64::from((number - largest).exp());
            }
            *log = (f64::from(largest) + sum.ln()) as f32;
        }
    }
}

/// `s (softmax(z) - one of the class)` of some rows.
struct Backward<'a> {
    logits: &'a [f32],
    classes: usize,
    logs: &'a [f32],
    chosen: &'a [usize],
    share: f32,
    rows: Range<usize>,
    of_logits: Shared,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { logits, classes, logs, chosen, share, rows, of_logits } = self;
        for row in rows {
            let range = row * classes..(row + 1) * classes;
            // SAFETY: this row is this task's.
            let to = unsafe { of_logits.part(range.clone()) };
            let (log, share) = (Lanes::splat(simd, logs[row]), Lanes::splat(simd, share));
            let from = logits[range].chunks(S::F32_LANES);
            for (from, part) in from.zip(to.chunks_mut(S::F32_LANES)) {
                (exp(Lanes::load(simd, from) - log) * share).store(part);
            }
            to[chosen[row]] -= self.share;
        }
    }
}
