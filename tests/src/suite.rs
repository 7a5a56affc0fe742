//! A run of recorded cases.

use crate::case::{Case, Outcome};
use crate::fixtures::Fixtures;
use crate::known::Known;

/// Folders of fixtures, each with the cases that may be unsupported there.
#[derive(Debug, Default)]
pub struct Suite {
    folders: Vec<(Fixtures, Known)>,
    filter: Option<String>,
}

/// How many cases had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub not_supported: usize,
}

impl Suite {
    /// With a folder.
    pub fn with(mut self, fixtures: Fixtures, known: Known) -> Self {
        self.folders.push((fixtures, known));
        self
    }

    /// With only the cases whose name contains `filter`, if it is given.
    pub fn only(self, filter: Option<String>) -> Self {
        Self { filter, ..self }
    }

    /// Runs all cases, and tells what became of each.
    pub fn run(
        &self,
        run: impl Fn(&Case) -> Outcome,
        mut tell: impl FnMut(&str, &Outcome),
    ) -> Tally {
        let mut tally = Tally::default();
        for (fixtures, known) in &self.folders {
            for found in fixtures.cases() {
                // A missing folder may have had the cases that are asked for.
                let is_case = found.name.contains('/');
                let fits = self.filter.as_ref().is_none_or(|filter| found.name.contains(filter));
                if is_case && !fits {
                    continue;
                }
                let outcome = found.case.map_or_else(|why| why, |case| run(&case));
                let outcome = known.judge(&found.name, outcome);
                match outcome {
                    Outcome::Passed(_) => tally.passed += 1,
                    Outcome::Failed(_) => tally.failed += 1,
                    Outcome::NotSupported(_) => tally.not_supported += 1,
                }
                tell(&found.name, &outcome);
            }
        }
        tally
    }
}
