//! Runs of a small model, as a program starts them.

mod frozen;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Calibration, InitContext, MethodConfig};
use peft_data::metrics::Metric;
use peft_data::{Dataset, Goal, Layout, TokenizedSet};
use peft_format::{ADAPTER_START, ADAPTER_WEIGHTS, Adapter, AdapterConfig, TaskType};
use peft_lora::{LoraConfig, LoraInit};
use peft_models::{Model, ModelTask, Precision, TextTokenizer};
use peft_sparse::HeadOnlyConfig;
use peft_train::{
    CalibrationBatches, Entry, Error, Observer, Outcome, Result, RunDirectory, TaskFile, TrainData,
    TrainSettings, Trainer,
};
use tempfile::TempDir;

/// A BERT with 2 layers, and four texts that fit into one batch.
struct Bench {
    folder: TempDir,
    model: Model,
    data: TrainData,
    task: TaskFile,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = "text\tlabel\nab\tx\nbc\ty\nca\tx\nbb\ty\n";
        let path = folder.path().join("train.tsv");
        std::fs::write(&path, rows).expect("written");
        let layout = Layout::default();
        let dataset = Dataset::discover(&path, &layout, Goal::Classify).expect("a data set");
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "c", "##c"];
        std::fs::write(folder.path().join("vocab.txt"), vocabulary.join("\n")).expect("written");
        let tokenizer = TextTokenizer::load(folder.path(), 8).expect("a tokenizer");

        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases/bert");
        let task = ModelTask { task: dataset.labels.task(), seed: 0 };
        let (model, _) = Model::load(&base, Some(task), &Device::flex()).expect("a model");
        let set = TokenizedSet::new(&dataset, &tokenizer, model.config()).expect("tokens");
        let data = TrainData { train: set.clone(), valid: Some(set), test: None };
        let task =
            TaskFile { labels: dataset.labels, layout, max_length: 8, load_in: Precision::Stored };
        Self { folder, model, data, task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, settings: TrainSettings, run: &RunDirectory, resume: bool) -> Result<Outcome> {
        self.observed(settings, run, resume, ())
    }

    fn observed(
        &self,
        settings: TrainSettings,
        run: &RunDirectory,
        resume: bool,
        observer: impl Observer,
    ) -> Result<Outcome> {
        self.train(HeadOnlyConfig {}, false, settings, run, resume, observer)
    }

    /// A run of a method, whose values are `restored` from a checkpoint or are new.
    fn train(
        &self,
        method: impl MethodConfig,
        restored: bool,
        settings: TrainSettings,
        run: &RunDirectory,
        resume: bool,
        observer: impl Observer,
    ) -> Result<Outcome> {
        let config = AdapterConfig::new(Box::new(method));
        let config = config.with_task(TaskType::SequenceClassification, self.model.base());
        let device = Device::flex().autodiff();
        let context = InitContext::new(self.model.base(), &device);
        let context = if restored { context.restored() } else { context };
        let adapter = Adapter::init(config, &context)?;
        Trainer::new(&self.model, adapter, self.task.clone(), settings, run.clone(), 0)?
            .with_observer(observer)
            .run(&self.data, resume)
    }
}

fn settings(epochs: usize) -> TrainSettings {
    TrainSettings { epochs, ..TrainSettings::default() }
}

/// Every file of a directory, with what it holds.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), std::fs::read(&path).expect("a file"))),
        }
    }
    found.sort();
    found
}

#[test]
fn a_used_directory_is_refused_and_stays_as_it_is() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    let outcome = bench.run(settings(2), &run, false).expect("trained");
    let before = contents(run.path());
    let error = bench.run(settings(2), &run, false).expect_err("used");
    assert!(matches!(error, Error::Used { .. }), "{error}");
    assert!(error.to_string().contains("already holds a run"), "{error}");
    assert_eq!(bench.run(settings(2), &run, true).expect("finished before"), outcome);
    assert!(contents(run.path()) == before, "a file has changed");

    // One that is left of a run is enough.
    for name in ["metrics.jsonl", "adapter", "checkpoint", "run.toml"] {
        let other = RunDirectory::new(bench.path(&format!("{name}-alone")));
        std::fs::create_dir_all(other.path().join(name)).expect("made");
        let error = bench.run(settings(1), &other, false).expect_err(name);
        assert!(matches!(error, Error::Used { .. }), "{name}: {error}");
    }
}

#[test]
fn a_directory_that_another_run_has_is_refused() {
    let bench = Bench::new();
    let path = bench.path("run");
    let other = RunDirectory::new(&path).claim(false).expect("a new directory");
    for resume in [false, true] {
        let error = bench.run(settings(1), &RunDirectory::new(&path), resume).expect_err("in use");
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    assert!(!other.metrics().exists());
    // Whose it is gives it to the trainer.
    bench.run(settings(1), &other, false).expect("trained");
    let error = bench.run(settings(1), &RunDirectory::new(&path), true).expect_err("still held");
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(other);
    bench.run(settings(1), &RunDirectory::new(&path), true).expect("finished before");
}

#[test]
fn what_is_not_finite_is_never_a_result() {
    let mut bench = Bench::new();
    let diverges = |bench: &Bench, name: &str, metric, rate, quantity: &str| {
        let run = RunDirectory::new(bench.path(&format!("{name}-{metric:?}")));
        let settings = TrainSettings { lr: Some(rate), metric, ..settings(1) };
        let error = bench.run(settings, &run, false).expect_err("diverged");
        assert!(matches!(error, Error::Diverged { step: 1, .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("the {quantity}")), "{error}");
        assert!(error.to_string().contains("is not finite at step 1: lower"), "{error}");
        assert!(!run.adapter().exists() && !run.result().exists() && !run.has_checkpoint());
    };
    // The only step of the epoch has a finite loss, and leaves a head that is not, or a finite one
    // whose outputs are not.
    for metric in [None, Some(Metric::Loss), Some(Metric::F1Macro)] {
        diverges(&bench, "head", metric, 1e300, "parameter ");
        diverges(&bench, "outputs", metric, 3e38, "output of the validation data");
    }
    bench.data.valid = None;
    diverges(&bench, "alone", None, 1e300, "parameter ");
    bench.data.test = Some(bench.data.train.clone());
    diverges(&bench, "tested", None, 1e300, "parameter ");
    // What is measured of a finite adapter is finite too.
    let run = RunDirectory::new(bench.path("test"));
    let rate = TrainSettings { lr: Some(3e38), ..settings(1) };
    let error = bench.run(rate, &run, false).expect_err("diverged").to_string();
    assert!(error.contains("output of the model under this adapter is not finite"), "{error}");
    assert!(!run.result().exists());
    bench.data.valid = bench.data.test.take();
    // One that the task does not have is another matter.
    let run = RunDirectory::new(bench.path("unknown"));
    let settings = TrainSettings { metric: Some(Metric::Perplexity), ..settings(1) };
    let error = bench.run(settings, &run, false).expect_err("no such metric").to_string();
    assert!(error.starts_with("metric = perplexity: this task has"), "{error}");
}

/// Stops after so many steps.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn stops(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

/// Three epochs of two steps, each with dropout and its own data.
fn six_steps() -> TrainSettings {
    TrainSettings { batch_size: 2, lr: Some(1e-2), ..settings(3) }
}

fn adapter_of(run: &RunDirectory) -> Vec<u8> {
    std::fs::read(run.adapter().join("adapter_model.safetensors")).expect("an adapter")
}

#[test]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_adapter() {
    let bench = Bench::new();
    let whole = RunDirectory::new(bench.path("whole"));
    bench.run(six_steps(), &whole, false).expect("trained");
    for after in 1..8 {
        let run = RunDirectory::new(bench.path(&format!("after-{after}")));
        let error =
            bench.observed(six_steps(), &run, false, StopAfter(after)).expect_err("stopped");
        let Error::Stopped { step, total: 6, .. } = error else { panic!("{error}") };
        // It is asked after each step, and at the end of an epoch.
        assert_eq!(step, [1, 2, 2, 3, 4, 4, 5][after - 1]);
        assert!(run.has_checkpoint() && !run.result().exists());
        bench.run(six_steps(), &run, true).expect("resumed");
        assert!(adapter_of(&run) == adapter_of(&whole), "stopped after step {step}");
        assert_eq!(run.entries().expect("a log"), whole.entries().expect("a log"));
    }
}

#[test]
fn a_damaged_run_directory_is_an_error_or_makes_no_difference() {
    let bench = Bench::new();
    let whole = RunDirectory::new(bench.path("whole"));
    bench.run(six_steps(), &whole, false).expect("trained");
    let stopped = RunDirectory::new(bench.path("stopped"));
    bench.observed(six_steps(), &stopped, false, StopAfter(5)).expect_err("stopped");
    let mut refused = 0;
    for origin in [&stopped, &whole] {
        for (file, content) in contents(origin.path()) {
            let name = file.strip_prefix(origin.path()).expect("inside").display().to_string();
            let middle = content.len() / 2;
            let mut flipped = content.clone();
            flipped.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            let damages = [Some(flipped), Some(content[..middle].to_vec()), Some(Vec::new()), None];
            for (number, damage) in damages.into_iter().enumerate() {
                if damage.as_ref() == Some(&content) {
                    continue;
                }
                let run = RunDirectory::new(bench.path("damaged"));
                for (path, content) in contents(origin.path()) {
                    let path = run.path().join(path.strip_prefix(origin.path()).expect("inside"));
                    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                    std::fs::write(path, content).expect("written");
                }
                match damage {
                    Some(damage) => std::fs::write(run.path().join(&name), damage),
                    None => std::fs::remove_file(run.path().join(&name)),
                }
                .expect("damaged");
                match bench.run(six_steps(), &run, true) {
                    Ok(_) if run.result().exists() => {
                        let same = adapter_of(&run) == adapter_of(&whole);
                        assert!(same, "{name}, damage {number}: another adapter");
                    }
                    Ok(_) => panic!("{name}, damage {number}: no result"),
                    Err(_) => refused += 1,
                }
                std::fs::remove_dir_all(run.path()).expect("removed");
            }
        }
    }
    assert!(refused > 30, "{refused} damages were noticed");
}

#[test]
fn of_epochs_with_like_values_the_one_with_the_least_loss_is_kept() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    // Too small a rate to change a label.
    let settings = TrainSettings { lr: Some(1e-5), ..settings(3) };
    let outcome = bench.run(settings, &run, false).expect("trained");
    let valid = run.entries().expect("a log").into_iter().filter_map(|entry| match entry {
        Entry::Valid { epoch, metrics, .. } => Some((epoch, metrics)),
        Entry::Step { .. } => None,
    });
    let valid: Vec<_> = valid.collect();
    let values: Vec<f64> =
        valid.iter().filter_map(|(_, metrics)| metrics.get(Metric::Accuracy)).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    let least = valid.iter().min_by(|a, b| {
        let loss = |(_, metrics): &(usize, peft_data::metrics::Metrics)| {
            metrics.get(Metric::Loss).expect("a loss")
        };
        loss(a).total_cmp(&loss(b))
    });
    assert_eq!(Some(outcome.best_epoch), least.map(|(epoch, _)| *epoch));
    assert_ne!(outcome.best_epoch, 1, "the loss falls");
}

#[test]
fn what_can_be_known_before_is_refused_before_anything_is_written() {
    let mut bench = Bench::new();
    bench.data.valid = None;
    let mistakes = [
        TrainSettings { early_stopping: Some(1), ..settings(1) },
        TrainSettings { metric: Some(Metric::Accuracy), ..settings(1) },
        TrainSettings { metric: Some(Metric::Pearson), ..settings(1) },
    ];
    for settings in mistakes {
        let run = RunDirectory::new(bench.path("run"));
        let error = bench.run(settings, &run, false).expect_err("a mistake");
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(!run.path().exists(), "{error}");
    }
}

#[test]
fn a_run_directory_that_is_removed_under_way_is_an_error() {
    struct Remove(PathBuf);
    impl Observer for Remove {
        fn entry(&mut self, _: &Entry) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    let error = bench.observed(settings(1), &run, false, Remove(run.path().into()));
    let error = error.expect_err("removed").to_string();
    assert!(error.contains("was removed"), "{error}");
    assert!(!run.path().exists(), "it was made again");
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_run() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    bench.observed(six_steps(), &run, false, StopAfter(5)).expect_err("stopped");
    let left = ["", "best", "checkpoint"].map(|name| run.path().join(name).join(".writing-abc"));
    left.iter().for_each(|path| std::fs::write(path, "half").expect("written"));
    bench.run(six_steps(), &run, true).expect("resumed");
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn what_a_process_left_that_was_killed_behind_its_result_is_removed_too() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    let outcome = bench.run(six_steps(), &run, false).expect("trained");
    let whole = contents(run.path());
    for name in ["best", "checkpoint", "checkpoint.old"] {
        std::fs::create_dir(run.path().join(name)).expect("made");
        std::fs::write(run.path().join(name).join("position.json"), "left").expect("written");
    }
    // The last checkpoint is whole until it is removed.
    bench
        .observed(six_steps(), &RunDirectory::new(bench.path("other")), false, StopAfter(5))
        .expect_err("stopped");
    std::fs::remove_dir_all(run.path().join("checkpoint")).expect("removed");
    std::fs::rename(bench.path("other/checkpoint"), run.path().join("checkpoint")).expect("moved");
    assert_eq!(bench.run(six_steps(), &run, true).expect("finished before"), outcome);
    assert!(contents(run.path()) == whole, "something is left, or has changed");
}

#[test]
fn a_log_that_cannot_be_read_ends_a_resumed_run() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    std::fs::create_dir_all(run.path()).expect("made");
    let broken = "{\"kind\":\"step\"\n{}\n";
    std::fs::write(run.metrics(), broken).expect("written");
    let error = bench.run(settings(1), &run, true).expect_err("broken").to_string();
    assert!(error.contains("metrics.jsonl, line 1: not an entry of a run"), "{error}");
    assert_eq!(std::fs::read_to_string(run.metrics()).expect("there"), broken);
}

/// What an observer was told.
#[derive(Debug, PartialEq)]
enum Told {
    Begin(usize, usize),
    Entry(Entry),
    End,
}

struct Recorder<'t>(&'t RefCell<Vec<Told>>);

impl Observer for Recorder<'_> {
    fn begin(&mut self, done: usize, total: usize) {
        self.0.borrow_mut().push(Told::Begin(done, total));
    }

    fn entry(&mut self, entry: &Entry) {
        self.0.borrow_mut().push(Told::Entry(entry.clone()));
    }

    fn end(&mut self) {
        self.0.borrow_mut().push(Told::End);
    }
}

#[test]
fn an_observer_is_told_every_line_of_the_log_and_nothing_of_a_run_that_was_finished() {
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    let told = RefCell::new(Vec::new());
    // Two epochs of two steps.
    let settings = TrainSettings { batch_size: 2, ..settings(2) };
    bench.observed(settings.clone(), &run, false, Recorder(&told)).expect("trained");
    let log = run.entries().expect("a log");
    assert_eq!(log.len(), 2 * (2 + 1));
    let lines = log.into_iter().map(Told::Entry);
    let expected: Vec<Told> = [Told::Begin(0, 4)].into_iter().chain(lines).collect();
    assert_eq!(told.take(), [expected, vec![Told::End]].into_iter().flatten().collect::<Vec<_>>());
    bench.observed(settings, &run, true, Recorder(&told)).expect("finished before");
    assert_eq!(told.take(), []);
}

#[test]
fn a_resumed_run_has_what_it_started_from_of_its_checkpoint() {
    let bench = Bench::new();
    let pissa = || LoraConfig { rank: 2, init: LoraInit::Pissa, ..LoraConfig::default() };
    let files = |run: &RunDirectory| {
        [ADAPTER_WEIGHTS, ADAPTER_START].map(|name| {
            std::fs::read(run.adapter().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
        })
    };
    let whole = RunDirectory::new(bench.path("whole"));
    bench.train(pissa(), false, settings(2), &whole, false, ()).expect("trained");

    // A file where the adapter is to be ends the run after its last checkpoint.
    let cut = RunDirectory::new(bench.path("cut"));
    std::fs::create_dir_all(cut.path()).expect("made");
    std::fs::write(cut.adapter(), "").expect("written");
    bench.train(pissa(), false, settings(2), &cut, true, ()).expect_err("there is no room");
    let best = std::fs::read(cut.path().join("best").join(ADAPTER_START)).expect("it is there");
    std::fs::remove_file(cut.adapter()).expect("it is there");
    // Nothing is left of the factors of the weight.
    bench.train(pissa(), true, settings(2), &cut, true, ()).expect("it goes on");
    assert!(files(&cut) == files(&whole), "the resumed run has another adapter");
    assert!(best == files(&whole)[1], "the best adapter has another start");
}

/// Only this test draws from the device.
#[test]
fn what_else_is_random_in_the_process_and_a_run_do_not_disturb_each_other() {
    let bench = Bench::new();
    let device = Device::flex();
    let drawn = || Tensor::<1>::random([8], Distribution::Default, &device).into_data();
    let lora = LoraConfig { rank: 2, dropout: 0.5, ..LoraConfig::default() };
    let mut runs = Vec::new();
    for seed in [1, 2] {
        device.seed(seed);
        let alone = drawn();
        device.seed(seed);
        let run = RunDirectory::new(bench.path(&seed.to_string()));
        bench.train(lora.clone(), false, settings(3), &run, false, ()).expect("trained");
        assert_eq!(drawn(), alone, "the run has drawn, or set the seed");
        runs.push(std::fs::read(run.adapter().join(ADAPTER_WEIGHTS)).expect("there"));
    }
    assert!(runs[0] == runs[1], "the run depends on what was drawn before");
}

#[test]
fn a_batch_that_cannot_be_looked_at_is_an_error_and_not_the_last_one() {
    let bench = Bench::new();
    // One text is longer than the model has positions.
    let path = bench.path("long.tsv");
    let long = "a ".repeat(60);
    let rows = format!("text\tlabel\nab\tx\n{long}\ty\nca\tx\nbb\ty\n");
    std::fs::write(&path, rows).expect("written");
    let dataset = Dataset::discover(&path, &Layout::default(), Goal::Classify).expect("a data set");
    let tokenizer = TextTokenizer::load(bench.folder.path(), 100).expect("a tokenizer");
    let set = TokenizedSet::new(&dataset, &tokenizer, bench.model.config()).expect("tokens");
    let batches = CalibrationBatches::new(&bench.model, &set, Goal::Classify, 1, 0);
    assert_eq!(batches.len(), 4);
    let losses = (0..4).map(|batch| batches.loss(batch, &()));
    let errors: Vec<_> = losses.filter_map(std::result::Result::err).collect();
    let [peft_core::Error::Pass { source }] = &errors[..] else { panic!("{errors:?}") };
    assert!(source.to_string().contains("the model has 40 positions"), "{source}");
}

#[test]
fn a_run_with_gradient_checkpointing_learns_the_same() {
    let bench = Bench::new();
    let losses = |gradient_checkpointing| {
        let run = RunDirectory::new(bench.path(&format!("checkpointing-{gradient_checkpointing}")));
        let settings = TrainSettings {
            batch_size: 1,
            accumulate: 2,
            gradient_checkpointing,
            max_grad_norm: 0.1,
            ..six_steps()
        };
        let losses = RefCell::new(Vec::new());
        let lora = LoraConfig { rank: 2, dropout: 0.3, ..LoraConfig::default() };
        bench.train(lora, false, settings, &run, false, Losses(&losses)).expect("trained");
        losses.into_inner()
    };
    let (saving, plain) = (losses(true), losses(false));
    assert_eq!((saving.len(), saving[0]), (6, plain[0]));
    let far = saving.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{saving:?} and {plain:?}");
}

/// The loss of each step.
struct Losses<'l>(&'l RefCell<Vec<f32>>);

impl Observer for Losses<'_> {
    fn entry(&mut self, entry: &Entry) {
        if let Entry::Step { loss, .. } = entry {
            self.0.borrow_mut().push(*loss);
        }
    }
}
