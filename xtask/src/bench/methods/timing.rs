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

/// Measures an epoch and inference of each that was not measured on this processor.
pub fn measure(
    program: &Path,
    configurations: &[Configuration],
    data: &Data,
    store: &mut Store,
) -> Result<()> {
    let processor = processor();
    let is_known = |configuration: &&Configuration| {
        store.timed().any(|timed| {
            timed.configuration == **configuration
                && timed.data == data.name
                && timed.processor == processor
        })
    };
    let unknown: Vec<&Configuration> =
        configurations.iter().filter(|configuration| !is_known(configuration)).collect();
    let Some(&first) = unknown.first() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // The head alone is the model as it was.
    let head = folder.path().join("head");
    let base = Configuration { method: "head".into(), settings: Vec::new(), ..first.clone() };
    run(base.training(program, data, &head).args(["--limit", "64"]))?;
    for configuration in unknown {
        let out = folder.path().join("run");
        match run(&mut configuration.training(program, data, &out)) {
            Ok(trained) => {
                let seconds = last_object(&trained.output)?["train_seconds"].as_f64();
                store.add(Record::Timed(Timed {
                    configuration: configuration.clone(),
                    data: data.name.clone(),
                    processor: processor.clone(),
                    epoch_seconds: seconds.context("train_seconds")?,
                    peak_bytes: trained.peak_bytes,
                    inference: inference(program, data, &out, &head)?,
                }))?;
            }
            Err(error) => eprintln!("{}: {error:#}", configuration.method),
        }
        // Another rate is another run.
        std::fs::remove_dir_all(&out).ok();
    }
    Ok(())
}

/// The time of the test texts under an adapter, relative to that under the head alone.
fn inference(program: &Path, data: &Data, adapter: &Path, head: &Path) -> Result<f64> {
    let seconds = |of: &Path| -> Result<f64> {
        let mut eval = Command::new(program);
        eval.args(["eval", "--json", "--adapter"]).arg(of).arg("--data").arg(&data.test);
        eval.args(["--columns", data.columns]);
        Ok(run(&mut eval)?.seconds)
    };
    let (mut own, mut plain) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..REPEATS {
        own = own.min(seconds(adapter)?);
        plain = plain.min(seconds(head)?);
    }
    Ok(own / plain)
}
