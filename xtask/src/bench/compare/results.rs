//! What was measured, kept from one call to the next.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::case::{Bar, Case, Run, median};

/// The last outcome of every case, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Results(pub BTreeMap<String, Outcome>);

/// What one case gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What all programs did.
    pub about: String,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// The commit that was measured.
    pub commit: String,
    /// The processor with its cores and instruction sets.
    pub machine: String,
    /// The versions of the peers.
    pub versions: String,
    /// How often each program was run.
    pub repeat: usize,
    /// How many runs began while something else ran.
    #[serde(default)]
    pub disturbed: usize,
    /// Programs that failed.
    pub failed: Vec<String>,
    /// The figures.
    pub figures: Vec<Compared>,
}

/// A quantity, and what it is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// What it is, with its unit.
    pub name: String,
    /// Whose it is.
    pub of: String,
    /// It; `None` where the program failed.
    pub value: Option<Spread>,
    /// Whose the other is.
    pub against: Option<String>,
    /// The other.
    pub other: Option<Spread>,
    /// The ratio of the medians.
    pub ratio: Option<f64>,
    /// What the ratio should be.
    pub bar: Option<Bar>,
}

impl Compared {
    /// Whether the bar is met; `None` where there is none, or nothing to compare.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.bar?.is_met(self.ratio?))
    }
}

/// Several measurements of one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    fn of(values: Vec<f64>) -> Option<Self> {
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { median: median(values)?, min, max })
    }
}

impl Results {
    /// Those of an earlier call; none where there is no file.
    pub fn load(path: &Path) -> Result<Self> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Writes them.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
}

/// The figures of a case, from the runs of each side.
pub fn compared(case: &Case, runs: &[Vec<Run>]) -> Vec<Compared> {
    let spread = |side: usize, read: &super::case::Read| {
        Spread::of(runs[side].iter().filter_map(|run| read.of(run)).collect())
    };
    let compare = |figure: &super::case::Figure| {
        let value = spread(figure.side, &figure.read);
        let other = figure.against.as_ref().and_then(|(side, read)| spread(*side, read));
        let name = figure.against.as_ref().map(|(side, _)| case.sides[*side].name.clone());
        Compared {
            name: figure.name.clone(),
            of: case.sides[figure.side].name.clone(),
            value,
            against: figure.against_name.clone().or(name),
            other,
            ratio: value.zip(other).map(|(value, other)| value.median / other.median),
            bar: figure.bar,
        }
    };
    case.figures.iter().map(compare).collect()
}
