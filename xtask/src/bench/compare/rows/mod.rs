//! All cases, by row.

mod causal;
mod checkpointing;
mod epoch;
mod estimate;
mod generate;
mod inference;
mod scale;
mod startup;
mod step;

use anyhow::Result;

use super::case::Case;
use super::setup::Setup;

/// A case that is made when it is chosen.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What makes it.
    pub case: Make,
}

/// What makes a case.
type Make = fn(&Setup) -> Result<Case>;

/// A case's name, and what makes it.
type Named = (&'static str, Make);

/// All of them, in the order in which they are measured.
pub fn catalogue() -> Vec<Entry> {
    let rows: [&[Named]; 9] = [
        &step::CASES,
        &epoch::CASES,
        &causal::CASES,
        &checkpointing::CASES,
        &startup::CASES,
        &inference::CASES,
        &generate::CASES,
        &scale::CASES,
        &estimate::CASES,
    ];
    rows.into_iter().flatten().map(|&(name, case)| Entry { name, case }).collect()
}
