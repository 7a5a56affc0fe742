//! What is compared: programs, and what is read of their runs.

use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::measure::Measured;

/// Programs that take turns.
pub struct Case {
    /// `step/lora`: the row that it belongs to, and its own name.
    pub name: String,
    /// What all of them do.
    pub about: String,
    /// The programs; the first is ours.
    pub sides: Vec<Side>,
    /// What is compared.
    pub figures: Vec<Figure>,
    /// The versions of the peers, where they are not the Python packages'.
    pub versions: Option<String>,
}

/// A program with its arguments.
pub struct Side {
    /// Whose it is, as the table says it.
    pub name: String,
    /// The program in the n-th repetition.
    pub command: Box<dyn Fn(usize) -> Result<Command>>,
}

impl Side {
    /// A program that is the same in every repetition.
    pub fn new(name: &str, command: impl Fn(usize) -> Result<Command> + 'static) -> Self {
        Self { name: name.into(), command: Box::new(command) }
    }
}

/// One run of a program.
pub struct Run {
    /// What it took.
    pub measured: Measured,
    /// The JSON object that it printed last.
    pub result: Value,
}

/// A quantity of one program, and perhaps what it is measured by.
pub struct Figure {
    /// What it is, with its unit.
    pub name: String,
    /// Whose it is, by its place among the sides.
    pub side: usize,
    /// The quantity.
    pub read: Read,
    /// The side that it is compared with, and that one's quantity.
    pub against: Option<(usize, Read)>,
    /// What that is called where it is not the other side.
    pub against_name: Option<String>,
    /// What the ratio should be.
    pub bar: Option<Bar>,
}

impl Figure {
    /// The same quantity of our program and of another.
    pub fn of(name: &str, read: Read, peer: usize, bar: Option<Bar>) -> Self {
        let against = Some((peer, read.clone()));
        Self { name: name.into(), side: 0, read, against, against_name: None, bar }
    }

    /// A quantity that is compared with nothing.
    pub fn alone(name: &str, side: usize, read: Read) -> Self {
        Self { name: name.into(), side, read, against: None, against_name: None, bar: None }
    }

    /// Two quantities of our program.
    pub fn within(name: &str, read: &str, against: &str, bar: Option<Bar>) -> Self {
        Self {
            name: name.into(),
            side: 0,
            read: Read::Median(format!("/{read}"), 0),
            against: Some((0, Read::Median(format!("/{against}"), 0))),
            against_name: Some(against.into()),
            bar,
        }
    }
}

/// What the ratio of ours over the other's should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// At most this much.
    AtMost(f64),
    /// At least this much.
    AtLeast(f64),
}

impl Bar {
    /// Whether a ratio meets it.
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

/// How a quantity is read of a run.
#[derive(Debug, Clone)]
pub enum Read {
    /// The median of a list in the result, but for so many at its beginning.
    Median(String, usize),
    /// A number in the result, or the sum of a list.
    Value(&'static str),
    /// The most memory resident at once, in MB.
    Peak,
    /// The same in bytes.
    PeakBytes,
    /// Seconds from the start of the process to its end.
    Wall,
    /// Seconds from the start of the process to the end of its first step.
    FirstStep,
    /// Seconds of so many products of these shapes, at the rates in the result.
    Products(Vec<([usize; 3], usize)>),
}

impl Read {
    /// The seconds of a step, without those that warm up.
    pub fn step() -> Self {
        Self::Median("/seconds".into(), super::WARM_UP)
    }

    /// The quantity; `None` where the run did not give it.
    pub fn of(&self, run: &Run) -> Option<f64> {
        match self {
            Self::Median(pointer, skipped) => {
                let values = run.result.pointer(pointer)?.as_array()?;
                let values = values.iter().skip(*skipped).filter_map(Value::as_f64);
                median(values.collect())
            }
            Self::Value(pointer) => match run.result.pointer(pointer)? {
                Value::Array(values) => values.iter().map(Value::as_f64).sum(),
                value => value.as_f64(),
            },
            Self::Peak => Some(run.measured.peak_bytes as f64 / 1e6),
            Self::PeakBytes => Some(run.measured.peak_bytes as f64),
            Self::Wall => Some(run.measured.seconds),
            Self::FirstStep => {
                let at = run.result.get("first_step_at")?.as_f64()?;
                Some(at - run.measured.started_at)
            }
            Self::Products(shapes) => {
                let seconds = shapes.iter().map(|([tokens, d_in, d_out], count)| {
                    let rate = run.result["gflops"].get(format!("{tokens}x{d_in}x{d_out}"))?;
                    let operations = 2.0 * (tokens * d_in * d_out * count) as f64;
                    Some(operations / 1e9 / rate.as_f64()?)
                });
                seconds.sum()
            }
        }
    }
}

/// The median; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(result: Value) -> Run {
        let (output, seconds, cpu_seconds) = (String::new(), 3.0, 3.0);
        let measured =
            Measured { output, seconds, cpu_seconds, peak_bytes: 2_000_000, started_at: 10.0 };
        Run { measured, result }
    }

    #[test]
    fn quantities_are_read_of_a_run() {
        let run = run(json!({
            "seconds": [9.0, 8.0, 1.0, 3.0, 2.0],
            "train_seconds": [1.0, 2.0],
            "first_step_at": 11.5,
            "gflops": {"10x20x30": 0.012},
        }));
        assert_eq!(Read::step().of(&run), Some(2.0));
        assert_eq!(Read::Value("/train_seconds").of(&run), Some(3.0));
        assert_eq!(Read::Value("/accuracy").of(&run), None);
        assert_eq!(Read::Peak.of(&run), Some(2.0));
        assert_eq!(Read::FirstStep.of(&run), Some(1.5));
        // 2 * 6000 operations, twice, at 12 million in a second.
        let seconds = Read::Products(vec![([10, 20, 30], 2)]).of(&run).unwrap();
        assert!((seconds - 0.002).abs() < 1e-12, "{seconds}");
    }

    #[test]
    fn a_bar_is_met_on_its_side() {
        assert!(Bar::AtMost(0.5).is_met(0.5) && !Bar::AtMost(0.5).is_met(0.51));
        assert!(Bar::AtLeast(0.7).is_met(0.7) && !Bar::AtLeast(0.7).is_met(0.69));
    }
}
