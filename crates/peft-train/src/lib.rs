#![doc = include_str!("../README.md")]

mod adapted;
mod builtin;
mod error;
mod evaluate;
mod heatmap;
mod loss;
mod resolve;
mod run;

pub use adapted::{AdaptedModel, AdapterPaths, Side, SideBySide};
pub use builtin::write_builtin;
pub use error::{Error, Result};
pub use evaluate::{Under, evaluate, predict, predict_tags};
pub use heatmap::Heatmap;
pub use resolve::{ResolvedModel, resolve};
pub use run::{
    CalibrationBatches, Entry, History, Outcome, RunDirectory, Schedule, TASK_FILE, TaskFile,
    TrainData, TrainSettings, Trainer,
};
