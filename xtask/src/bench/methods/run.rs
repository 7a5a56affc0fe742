//! One training.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::data::Data;
use super::store::{Record, Store, Trained};
use super::{last_object, output};
use crate::measure::{Measured, measure};

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    pub model: String,
    pub method: String,
    /// `key=value`.
    #[serde(default)]
    pub settings: Vec<String>,
    /// The method's own, if none.
    pub lr: Option<f64>,
    pub epochs: usize,
    pub batch_size: usize,
}

impl Configuration {
    /// `peft train` over a data set, into a directory.
    pub fn training(&self, program: &Path, data: &Data, out: &Path) -> Command {
        let mut train = Command::new(program);
        train.args(["train", "--json", "--model", &self.model, "--method", &self.method]);
        train.arg("--train").arg(&data.train).args(["--columns", data.columns]);
        train.args(["--epochs", &self.epochs.to_string()]);
        train.args(["--batch-size", &self.batch_size.to_string()]);
        for setting in &self.settings {
            train.args(["--set", setting]);
        }
        if let Some(lr) = self.lr {
            train.args(["--lr", &lr.to_string()]);
        }
        train.arg("--out").arg(out);
        train
    }
}

/// Trains and measures the accuracy, unless that was done. A method that cannot be trained so is
/// named, and left out.
pub fn train(
    program: &Path,
    configuration: &Configuration,
    data: &Data,
    seed: u64,
    store: &mut Store,
) -> Result<()> {
    let known = store.trained().any(|trained| {
        trained.configuration == *configuration && trained.data == data.name && trained.seed == seed
    });
    if known {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let mut command = configuration.training(program, data, &out);
    command.arg("--test").arg(&data.test).args(["--seed", &seed.to_string()]);
    let Measured { output: printed, .. } = match measure(&mut command) {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("{}: {error:#}", configuration.method);
            return Ok(());
        }
    };
    let result = last_object(&printed)?;
    let accuracy = result.pointer("/test/accuracy").and_then(Value::as_f64);
    let mut counts = Command::new(program);
    counts.args(["counts", "--json", "--model", &configuration.model]);
    counts.args(["--method", &configuration.method]);
    for setting in &configuration.settings {
        counts.args(["--set", setting]);
    }
    let counts = output(&mut counts)?;
    let counts = &counts["counts"][0]["counts"];
    let number = |name: &str| counts[name].as_u64().with_context(|| name.to_string());
    let files = std::fs::read_dir(out.join("adapter"))?;
    let size = |file: std::io::Result<std::fs::DirEntry>| anyhow::Ok(file?.metadata()?.len());
    store.add(Record::Trained(Trained {
        configuration: configuration.clone(),
        data: data.name.clone(),
        seed,
        accuracy: accuracy.context("an accuracy")?,
        trainable: number("trainable")?,
        changed: number("changed")?,
        rank: number("rank")?,
        mergeable: counts["merge_obstacle"].is_null(),
        file_bytes: files.map(size).sum::<Result<u64>>()?,
    }))
}
