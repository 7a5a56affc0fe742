#![doc = include_str!("../README.md")]

mod adapted;
mod answers;
mod error;
mod estimate;
mod evaluate;
mod frozen_states;
mod loss;
mod run;

pub use adapted::{AdaptedModel, AdapterPaths, Side, SideBySide};
pub use answers::{Answered, predict_answers};
pub use error::{Error, Result};
pub use estimate::{Estimate, Machine, Memory, Weights, Workload};
pub use evaluate::{Under, evaluate, predict, predict_tags};
pub use run::{
    CalibrationBatches, Entry, History, LearningRates, Observer, Outcome, RunDirectory, Schedule,
    TASK_FILE, TaskFile, TrainData, TrainSettings, Trainer,
};
