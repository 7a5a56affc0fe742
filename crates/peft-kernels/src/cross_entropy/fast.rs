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
    apply(CrossEntropy { classes: chosen(classes, count) }, [logits.into_dispatch()])
}

/// The classes of all rows, of so many.
pub(super) fn chosen(classes: Tensor<1, Int>, count: usize) -> Vec<usize> {
    let one_of = |class: i64| {
        let class = usize::try_from(class).ok().filter(|class| *class < count);
        class.expect("one of the classes")
    };
    classes.into_data().iter().map(one_of).collect()
}

/// `log Σ exp(z)` of each row.
pub(super) fn log_sums(logits: &[f32], [rows, classes]: [usize; 2]) -> Vec<f32> {
    // SAFETY: every task writes its rows.
    unsafe {
        filled(rows, |logs| {
            grid(rows, 1, |rows, _| run(Forward { logits, classes, rows, logs }));
        })
    }
}

/// The sum of the losses of rows, whose `log Σ exp(z)` and classes these are.
pub(super) fn loss_of(logits: &[f32], classes: usize, logs: &[f32], chosen: &[usize]) -> f64 {
    let rows = logs.iter().zip(chosen).enumerate();
    let losses =
        rows.map(|(row, (log, class))| f64::from(*log) - f64::from(logits[row * classes + class]));
    losses.sum()
}

/// Logits to `s (softmax(z) - one of the class)`, in their place.
pub(super) fn to_slopes(
    logits: &mut [f32],
    classes: usize,
    logs: &[f32],
    chosen: &[usize],
    share: f32,
) {
    assert!(logs.len() == chosen.len() && logits.len() == logs.len() * classes, "rows of classes");
    let all = Shared::of(logits);
    grid(logs.len(), 1, |rows, _| {
        // SAFETY: these rows are this task's.
        let values = unsafe { all.part(rows.start * classes..rows.end * classes) };
        let (logs, chosen) = (&logs[rows.clone()], &chosen[rows]);
        run(Slopes { values, classes, logs, chosen, share });
    });
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
        let logits = numbers(&logits);
        let logs = log_sums(logits, [rows, classes]);
        let mean = loss_of(logits, classes, &logs, &self.classes) / rows as f64;
        (output(vec![mean as f32], [1]), vec![output(logs, [rows])])
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
        let logs = numbers(&saved.values[0]);
        // SAFETY: every task writes its rows.
        let of_logits = unsafe {
            filled(rows * classes, |of_logits| {
                grid(rows, 1, |rows, _| {
                    let place = rows.start * classes..rows.end * classes;
                    let values = of_logits.part(place.clone());
                    values.copy_from_slice(&numbers(&logits)[place]);
                    let (logs, chosen) = (&logs[rows.clone()], &self.classes[rows]);
                    run(Slopes { values, classes, logs, chosen, share });
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

/// `s (softmax(z) - one of the class)` of some rows, in the place of `z`.
struct Slopes<'a> {
    values: &'a mut [f32],
    classes: usize,
    logs: &'a [f32],
    chosen: &'a [usize],
    share: f32,
}

impl WithSimd for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { values, classes, logs, chosen, share } = self;
        let factor = Lanes::splat(simd, share);
        for ((row, log), class) in values.chunks_mut(classes).zip(logs).zip(chosen) {
            let log = Lanes::splat(simd, *log);
            for part in row.chunks_mut(S::F32_LANES) {
                (exp(Lanes::load(simd, part) - log) * factor).store(part);
            }
            row[*class] -= share;
        }
    }
}
