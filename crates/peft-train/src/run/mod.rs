//! A training run: its settings, its loop, and the directory that it writes.

mod ahead;
mod calibration;
mod checkpoint;
mod directory;
mod finite;
mod frozen;
mod gradients;
mod history;
mod moments;
mod observer;
mod rates;
mod schedule;
mod settings;
mod sums;
mod trainer;

pub use calibration::CalibrationBatches;
pub use directory::{RunDirectory, TASK_FILE, TaskFile};
pub use history::{Entry, History};
pub use observer::Observer;
pub use rates::LearningRates;
pub use schedule::Schedule;
pub use settings::TrainSettings;
pub use trainer::{Outcome, TrainData, Trainer};
