//! Learning rates over a run.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after it has risen.
///
/// A function of the step alone, so that nothing has to be restored when a run is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// In a straight line to zero.
    #[default]
    Linear,
    /// Along half a cosine to zero.
    Cosine,
    /// Not at all.
    Constant,
}

impl Schedule {
    /// The share of the highest rate that step `step` of `total` has, both counted from 0, after
    /// a straight rise over the first `warmup` steps.
    ///
    /// ```
    /// use peft_train::Schedule;
    /// assert_eq!(Schedule::Linear.share(0, 0, 10), 1.0);
    /// assert_eq!(Schedule::Linear.share(5, 0, 10), 0.5);
    /// assert_eq!(Schedule::Cosine.share(1, 4, 10), 0.25);
    /// ```
    pub fn share(self, step: usize, warmup: usize, total: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
        match self {
            Self::Linear => (1.0 - done).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            Self::Constant => 1.0,
        }
    }
}
