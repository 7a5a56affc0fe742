//! An epoch of sentences.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::Named;
use super::step::query_value;
use crate::bench::compare::case::{Bar, Case, Figure, Read, Side};
use crate::bench::compare::setup::Setup;

/// The cases.
pub const CASES: [Named; 7] = [
    ("epoch/lora", |setup| case(setup, &Epoch::new("epoch/lora", "peft", "lora", query_value()))),
    ("epoch/bf16", |setup| {
        let epoch = Epoch::new("epoch/bf16", "peft", "lora", query_value());
        case(setup, &Epoch { dtype: "bf16", bar: 0.4, ..epoch })
    }),
    ("epoch/prefix", |setup| {
        let settings = json!({"num_virtual_tokens": 20});
        let epoch = Epoch::new("epoch/prefix", "peft", "prefix", settings);
        case(setup, &Epoch { lr: 1e-2, bar: 0.35, ..epoch })
    }),
    ("epoch/ia3", |setup| {
        let modules = ["key", "value", "output.dense"];
        let settings = json!({"target_modules": modules, "feedforward_modules": ["output.dense"]});
        let epoch = Epoch::new("epoch/ia3", "peft", "ia3", settings);
        case(setup, &Epoch { lr: 1e-2, bar: 0.35, ..epoch })
    }),
    ("epoch/houlsby", |setup| {
        let epoch = Epoch::new("epoch/houlsby", "adapters", "houlsby", json!({}));
        case(setup, &Epoch { bar: 0.35, ..epoch })
    }),
    ("epoch/unipelt", |setup| {
        let epoch = Epoch::new("epoch/unipelt", "adapters", "unipelt", json!({}));
        case(setup, &Epoch { bar: 0.35, ..epoch })
    }),
    ("epoch/bitfit", |setup| {
        let epoch = Epoch::new("epoch/bitfit", "plain", "bitfit", json!({}));
        case(setup, &Epoch { lr: 1e-2, bar: 0.35, ..epoch })
    }),
];

struct Epoch {
    name: &'static str,
    /// Whose the peer is.
    library: &'static str,
    method: &'static str,
    /// The same for both: what is left out is the same by default.
    settings: Value,
    lr: f64,
    dtype: &'static str,
    /// Of the time.
    bar: f64,
}

/// Texts in a batch.
const BATCH: usize = 32;

/// Lines to train on, where few are enough.
const FEW: usize = 640;

impl Epoch {
    fn new(
        name: &'static str,
        library: &'static str,
        method: &'static str,
        settings: Value,
    ) -> Self {
        Self { name, library, method, settings, lr: 1e-3, dtype: "f32", bar: 0.3 }
    }
}

fn case(setup: &Setup, epoch: &Epoch) -> Result<Case> {
    let limit = setup.limit.or(setup.quick().then_some(FEW));
    let [train, test] = setup.data()?;
    let mut common = vec!["--model".to_string(), setup.encoder()?.display().to_string()];
    common.extend(["--train".into(), train.display().to_string()]);
    common.extend(["--test".into(), test.display().to_string()]);
    common.extend(["--epochs", "1", "--method", epoch.method, "--json"].map(String::from));
    common.extend(["--batch-size".into(), BATCH.to_string()]);
    common.extend(["--lr".into(), epoch.lr.to_string()]);
    common.extend(limit.iter().flat_map(|limit| ["--limit".to_string(), limit.to_string()]));
    if epoch.dtype != "f32" {
        common.extend(["--dtype".into(), epoch.dtype.into()]);
    }
    let sides = vec![ours(setup, epoch, common.clone()), reference(setup, epoch, common)?];
    let (bar, memory) = (Some(Bar::AtMost(epoch.bar)), Some(Bar::AtMost(0.5)));
    let figures = vec![
        Figure::of("whole process, s", Read::Wall, 1, bar),
        Figure::of("training alone, s", Read::Value("/train_seconds"), 1, None),
        Figure::of("peak memory, MB", Read::Peak, 1, memory),
        Figure {
            against: Some((1, Read::Value("/accuracy"))),
            ..Figure::of("accuracy", Read::Value("/test/accuracy"), 1, None)
        },
        Figure {
            against: Some((1, Read::Value("/trainable_parameters"))),
            ..Figure::of("trained values", Read::Value("/trainable"), 1, None)
        },
    ];
    let some = limit.map_or_else(String::new, |limit| format!("the first {limit} lines of "));
    let file = train.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
    let about = format!(
        "One epoch of {some}{}, in batches of {BATCH}, then its test file; {} with {}, lr {}; {}, the \
         peer's `torch.autocast` where it is bf16; the n-th runs of both have the seed n - 1.",
        file.display(),
        epoch.method,
        match epoch.settings.as_object().is_some_and(|fields| fields.is_empty()) {
            true => "its defaults".into(),
            false => format!("`{}`", epoch.settings),
        },
        epoch.lr,
        epoch.dtype,
    );
    Ok(Case { name: epoch.name.into(), about, sides, figures, versions: None })
}

fn ours(setup: &Setup, epoch: &Epoch, common: Vec<String>) -> Side {
    let (program, out) = (setup.program("peft"), setup.folder("epoch"));
    let settings = epoch.settings.clone();
    Side::new("ours", move |round| {
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        let mut command = Command::new(&program);
        command.arg("train").args(&common).args(["--task", "classify", "--columns", "text,label"]);
        for (key, value) in settings.as_object().into_iter().flatten() {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.args(["--seed", &round.to_string(), "--out"]).arg(&out);
        Ok(command)
    })
}

fn reference(setup: &Setup, epoch: &Epoch, common: Vec<String>) -> Result<Side> {
    let (python, script) = (setup.python()?, setup.script("train_baseline.py"));
    let settings = epoch.settings.to_string();
    let library = epoch.library;
    let name = if library == "plain" { "PyTorch" } else { library };
    Ok(Side::new(name, move |round| {
        let mut command = Command::new(&python);
        command.arg(&script).args(&common).args(["--library", library, "--settings", &settings]);
        command.args(["--seed", &round.to_string()]);
        Ok(command)
    }))
}
