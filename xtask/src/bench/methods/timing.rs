//! Time and memory of a method.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::data::Data;
use super::last_object;
use super::run::Configuration;
use super::store::{Record, Store, Timed};
use crate::bench::compare::machine::processor;
use crate::measure::measure as run;

/// How often inference is run; the fastest counts.
const REPEATS: usize = 3;

/// Measures an epoch and inference, unless that was done on this processor.
pub fn measure(
    program: &Path,
    configuration: &Configuration,
    data: &Data,
    store: &mut Store,
) -> Result<()> {
    let processor = processor();
    let known = store.timed().any(|timed| {
        timed.configuration == *configuration
            && timed.data == data.name
            && timed.processor == processor
    });
    if known {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let trained = match run(&mut configuration.training(program, data, &out)) {
        Ok(trained) => trained,
        Err(error) => {
            eprintln!("{}: {error:#}", configuration.method);
            return Ok(());
        }
    };
    let epoch_seconds = last_object(&trained.output)?["train_seconds"].as_f64();
    // The head alone, of the same size, is the model as it was.
    let head = folder.path().join("head");
    let base =
        Configuration { method: "head".into(), settings: Vec::new(), ..configuration.clone() };
    run(base.training(program, data, &head).args(["--limit", "64"]))?;
    let inference = |of: &Path| -> Result<f64> {
        let mut eval = Command::new(program);
        eval.args(["eval", "--json", "--adapter"]).arg(of).arg("--data").arg(&data.test);
        eval.args(["--columns", data.columns]);
        Ok(run(&mut eval)?.seconds)
    };
    let (mut own, mut plain) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..REPEATS {
        own = own.min(inference(&out)?);
        plain = plain.min(inference(&head)?);
    }
    store.add(Record::Timed(Timed {
        configuration: configuration.clone(),
        data: data.name.clone(),
        processor,
        epoch_seconds: epoch_seconds.context("train_seconds")?,
        peak_bytes: trained.peak_bytes,
        inference: own / plain,
    }))
}
