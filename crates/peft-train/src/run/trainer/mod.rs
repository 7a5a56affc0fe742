//! The training loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use peft_core::{Method, Stack, num_trainable};
use peft_data::TokenizedSet;
use peft_data::metrics::{Metric, Metrics};
use peft_format::Adapter;
use peft_kernels::AdamW;
use peft_kernels::profile::span;
use peft_models::{AddedTokens, Model};
use serde::{Deserialize, Serialize};

use super::ahead::{Ahead, Plan};
use super::checkpoint::{self, Best, Position};
use super::sums::{self, Sums};
use super::{
    Entry, History, LearningRates, Observer, RunDirectory, TaskFile, TrainSettings, finite, frozen,
};
use crate::evaluate::{Under, evaluate, metrics_of};
use crate::frozen_states::{FrozenStates, Room};
use crate::{Error, Result};

mod step;

/// The data of a run.
#[derive(Debug, Clone)]
pub struct TrainData {
    /// What is learned from.
    pub train: TokenizedSet,
    /// What judges epochs.
    pub valid: Option<TokenizedSet>,
    /// What is measured once, at the end.
    pub test: Option<TokenizedSet>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Optimizer steps.
    pub steps: usize,
    /// Epochs.
    pub epochs: usize,
    /// The epoch (from 1) whose adapter was kept.
    pub best_epoch: usize,
    /// Seconds spent in training, evaluations included.
    pub train_seconds: f64,
    /// Tokens trained on per second, padding not counted.
    pub tokens_per_second: f64,
    /// Values trained, those included that are dropped after the last step.
    pub trainable: usize,
    /// The validation data under the adapter that was kept.
    pub valid: Option<Metrics>,
    /// The test data under it.
    pub test: Option<Metrics>,
}

/// Trains an adapter over a frozen model.
///
/// A run is reproducible: its parameters are a function of its settings, data and seed, and a run
/// that was cut off and resumed ends with the same bits as one that was not (on a device whose
/// arithmetic is itself reproducible).
pub struct Trainer<'m> {
    model: &'m Model,
    adapter: Adapter,
    task: TaskFile,
    added_tokens: AddedTokens,
    settings: TrainSettings,
    directory: RunDirectory,
    seed: u64,
    device: Device,
    observer: Box<dyn Observer + 'm>,
    fingerprint: String,
    rates: LearningRates,
}

impl<'m> Trainer<'m> {
    /// A run that trains `adapter` over `model` and writes to `directory`.
    ///
    /// # Errors
    /// If the settings make no sense, or the task is not that of the model's head.
    pub fn new(
        model: &'m Model,
        adapter: Adapter,
        task: TaskFile,
        settings: TrainSettings,
        directory: RunDirectory,
        seed: u64,
    ) -> Result<Self> {
        settings.validate()?;
        task.labels.check(model.task())?;
        let device = model.base().device().clone();
        let config = serde_json::Value::Object(adapter.config.to_fields());
        let below = frozen::fingerprint(&adapter.method, model.base());
        let fingerprint = serde_json::json!([settings, task, config, seed, below]).to_string();
        Ok(Self {
            model,
            adapter,
            task,
            added_tokens: AddedTokens::default(),
            settings,
            directory,
            seed,
            device,
            observer: Box::new(()),
            fingerprint,
            rates: LearningRates::default(),
        })
    }

    /// With tokens that were added to the tokenizer, which are kept with the adapter.
    pub fn with_added_tokens(self, added_tokens: AddedTokens) -> Self {
        Self { added_tokens, ..self }
    }

    /// With somebody who is told what happens.
    pub fn with_observer(self, observer: impl Observer + 'm) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// With the run directory claimed, for who writes into it before [`run`](Self::run).
    ///
    /// # Errors
    /// As [`RunDirectory::claim`].
    pub fn claim(mut self, resume: bool) -> Result<Self> {
        self.directory = self.directory.claim(resume)?;
        Ok(self)
    }

    /// Checks all that can be known before the first step. Nothing is written.
    ///
    /// # Errors
    /// If there is nothing to train on, a setting needs validation data that are not there or is a
    /// metric that the task has not, or there is a checkpoint to resume that is damaged or of other
    /// settings.
    pub fn check(&self, data: &TrainData, resume: bool) -> Result<()> {
        let settings = &self.settings;
        if data.train.is_empty() {
            return Err(Error::setting("train", "no examples", "there must be at least one"));
        }
        if let Some(metric) = settings.metric {
            has_metric(metric, &metrics_of(&self.task.labels))?;
        }
        if data.valid.is_none() {
            let needs = "needs validation data";
            if let Some(patience) = settings.early_stopping {
                return Err(Error::setting("early_stopping", patience, needs));
            }
            if let Some(metric) = settings.metric {
                return Err(Error::setting("metric", metric.name(), needs));
            }
        }
        if let Some(room) = settings.cache_frozen {
            self.frozen_layers(data, room)?;
        }
        if let Some(position) =
            checkpoint::position(&self.directory.checkpoint())?.filter(|_| resume)
        {
            self.check_fingerprint(&position, data)?;
        }
        Ok(())
    }

    /// How many layers give the same in every step.
    fn frozen_layers(&self, data: &TrainData, room: usize) -> Result<usize> {
        let (goal, method) = (self.task.labels.goal, &self.adapter.method);
        FrozenStates::layer(self.model, &data.train, goal, method, room)
    }

    /// What must be the same where a run goes on.
    fn fingerprint(&self, data: &TrainData) -> String {
        let base = self.model.base();
        let sets = [Some(&data.train), data.valid.as_ref(), data.test.as_ref()];
        let sets = sets.map(|set| set.map(TokenizedSet::fingerprint));
        serde_json::json!([self.fingerprint, sets, base.num_weights(), base.num_bytes()])
            .to_string()
    }

    fn check_fingerprint(&self, position: &Position, data: &TrainData) -> Result<()> {
        match position.fingerprint == self.fingerprint(data) {
            true => Ok(()),
            false => Err(Error::file(
                self.directory.checkpoint(),
                "was written by a run with other settings; resume with the same, or start in \
                 another directory",
            )),
        }
    }

    /// Trains, from the last checkpoint if `resume` says so and there is one; of a run that is
    /// finished, `resume` gives the outcome again.
    ///
    /// # Errors
    /// If the directory holds a run that is not to be resumed, or one is writing to it; if the loss or
    /// a metric is not finite, a file cannot be read or written, or a checkpoint is of other settings.
    pub fn run(mut self, data: &TrainData, resume: bool) -> Result<Outcome> {
        if self.directory.is_used() {
            // What another run is writing is not looked at.
            self.directory = self.directory.claim(resume)?;
        }
        self.check(data, resume)?;
        let settings = &self.settings;
        let plan = self.plan(data);
        let batches = plan.batches();
        let steps_per_epoch = batches.div_ceil(settings.accumulate);
        let total = steps_per_epoch * settings.epochs;
        self.directory = self.directory.claim(resume)?;
        if let Some(outcome) = self.directory.outcome()? {
            // The process may have ended right behind the result.
            self.directory.discard_checkpoint()?;
            return Ok(outcome);
        }
        let mut state = self.start(data, resume)?;
        self.rates = LearningRates::of(&state.method);
        let kept = (state.position.step, state.position.epochs);
        let mut history = History::until(&self.directory.metrics(), kept.0, kept.1)?;
        if kept.0 > 0 && history.digest() != state.position.log {
            return Err(Error::damaged(self.directory.metrics()));
        }
        self.observer.begin(state.position.step, total);
        std::thread::scope(|scope| {
            let ahead = plan.ahead(scope, &state.position);
            self.epochs(&mut state, data, (&ahead, batches), &mut history, total)
        })?;
        self.observer.end();
        self.finish(state, data, &history)
    }

    /// Which batches the steps are over.
    fn plan<'d>(&self, data: &'d TrainData) -> Plan<'d> {
        Plan {
            data: &data.train,
            batch_size: self.settings.batch_size,
            by_length: self.settings.group_by_length,
            accumulate: self.settings.accumulate,
            epochs: self.settings.epochs,
            seed: self.seed,
            device: self.device.clone(),
        }
    }

    /// The epochs that are left, each of so many batches, with their evaluations.
    fn epochs(
        &mut self,
        state: &mut State<'_>,
        data: &TrainData,
        (ahead, batches): (&Ahead, usize),
        history: &mut History,
        total: usize,
    ) -> Result<()> {
        let settings = self.settings.clone();
        let metric = settings.judge(&self.task.labels);
        let started = Instant::now();
        let before = state.position.seconds;
        while state.position.epochs < settings.epochs && !self.stops_early(&state.position) {
            let epoch = state.position.epochs;
            while state.position.batches < batches {
                let step = span("waiting for data", || ahead.next())?;
                let entry = span("step: the rest", || self.step(state, data, &step, epoch, total))?;
                self.observer.entry(&entry);
                history.push(entry)?;
                state.position.batches += step.len();
                state.position.seconds = before + started.elapsed().as_secs_f64();
                let is_due = state.position.step.is_multiple_of(settings.checkpoint_every);
                let stops = self.observer.stops();
                if (is_due || stops) && state.position.batches < batches {
                    self.checkpoint(state, history)?;
                    if stops {
                        return Err(self.stopped(state, total));
                    }
                }
            }
            state.position.batches = 0;
            state.position.epochs += 1;
            if let Some(valid) = &data.valid {
                let metrics = span("evaluation: the rest", || self.judge(state, valid, metric))?;
                let (step, epoch) = (state.position.step, state.position.epochs);
                let entry = Entry::Valid { step, epoch, metrics };
                self.observer.entry(&entry);
                history.push(entry)?;
            }
            state.position.seconds = before + started.elapsed().as_secs_f64();
            self.checkpoint(state, history)?;
            self.observer.epoch(state.position.epochs, settings.epochs);
            let is_last = state.position.epochs == settings.epochs;
            if self.observer.stops() && !is_last && !self.stops_early(&state.position) {
                return Err(self.stopped(state, total));
            }
        }
        Ok(())
    }

    fn stopped(&mut self, state: &State<'_>, total: usize) -> Error {
        self.observer.end();
        Error::Stopped { path: self.directory.path().into(), step: state.position.step, total }
    }

    fn start<'d>(&self, data: &'d TrainData, resume: bool) -> Result<State<'d>>
    where
        'm: 'd,
    {
        let optimizer = AdamW::new(self.settings.weight_decay).into();
        let method = self.adapter.method.clone();
        let frozen = self.frozen(data)?;
        if resume {
            let found = checkpoint::load(&self.directory.checkpoint(), &method, &optimizer)?;
            if let Some((position, method, optimizer)) = found {
                self.check_fingerprint(&position, data)?;
                return Ok(State { position, method, optimizer, frozen });
            }
        }
        let position = Position { fingerprint: self.fingerprint(data), ..Position::default() };
        Ok(State { position, method, optimizer, frozen })
    }

    /// What frozen layers make of the texts, if it is to be kept.
    fn frozen<'d>(&self, data: &'d TrainData) -> Result<Option<Frozen<'d>>>
    where
        'm: 'd,
    {
        let Some(room) = self.settings.cache_frozen else { return Ok(None) };
        let layer = self.frozen_layers(data, room)?;
        tracing::info!("of the first {layer} layers, the output is kept");
        let room = Rc::new(RefCell::new(Room::new(&self.settings, self.directory.path())));
        let of = |data: &'d TokenizedSet| FrozenStates::new(self.model, data, layer, room.clone());
        Ok(Some(Frozen { train: of(&data.train), valid: data.valid.as_ref().map(of) }))
    }

    /// Evaluates on the validation data, and keeps the adapter if it is the best so far.
    fn judge(
        &self,
        state: &mut State<'_>,
        valid: &TokenizedSet,
        metric: Metric,
    ) -> Result<Metrics> {
        let (labels, batch) = (&self.task.labels, self.settings.eval_batch_size);
        self.check_finite(&state.method, state.position.step)?;
        // What is judged is what would be saved.
        let mut finished = state.method.clone();
        finished.finish();
        let hooks = finished.valid();
        let states = state.frozen.as_ref().and_then(|frozen| frozen.valid.as_ref());
        let under = Under::method(&hooks).with_states(states);
        let metrics = evaluate(self.model, under, valid, labels, batch);
        let metrics = metrics.map_err(|error| match error {
            Error::NotFinite { quantity } => {
                let quantity = format!("{quantity} of the validation data");
                Error::Diverged { step: state.position.step, quantity }
            }
            error => error,
        })?;
        let value = has_metric(metric, &metrics)?;
        let loss = metrics.get(Metric::Loss).unwrap_or(0.0);
        let is_better = state.position.best.as_ref().is_none_or(|best| {
            let is_like = value == best.value && Metric::Loss.better(loss, best.loss);
            metric.better(value, best.value) || is_like
        });
        if is_better {
            let directory = self.directory.best();
            self.save(&state.method, &directory)?;
            let digest = sums::digest_of(&directory.join(peft_format::ADAPTER_WEIGHTS))?;
            let epoch = state.position.epochs;
            state.position.best = Some(Best { epoch, value, loss, digest });
        }
        Ok(metrics)
    }

    fn stops_early(&self, position: &Position) -> bool {
        match (self.settings.early_stopping, &position.best) {
            (Some(patience), Some(best)) => position.epochs >= best.epoch + patience,
            _ => false,
        }
    }

    fn checkpoint(&self, state: &mut State<'_>, history: &History) -> Result<()> {
        self.check_finite(&state.method, state.position.step)?;
        self.directory.check_is_there()?;
        state.position.log = history.digest();
        let directory = self.directory.checkpoint();
        let State { position, method, optimizer, .. } = state;
        checkpoint::save(&directory, position, method, optimizer, history)
    }

    /// Refuses parameters that a step has made infinite or no numbers.
    fn check_finite(&self, method: &Stack, step: usize) -> Result<()> {
        match finite::first_not_finite(method) {
            Some(path) => Err(Error::Diverged { step, quantity: format!("parameter {path}") }),
            None => Ok(()),
        }
    }

    fn save(&self, method: &Stack, directory: &std::path::Path) -> Result<()> {
        let adapter = Adapter { config: self.adapter.config.clone(), method: method.clone() };
        self.directory.check_is_there()?;
        // First, so that an adapter with its configuration is an adapter with its task.
        self.task.save(directory)?;
        self.added_tokens.save(directory)?;
        Ok(adapter.save(directory, self.model.base())?)
    }

    fn finish(&mut self, state: State<'_>, data: &TrainData, history: &History) -> Result<Outcome> {
        let State { position, mut method, .. } = state;
        let best_epoch = position.best.as_ref().map_or(position.epochs, |best| best.epoch);
        warn_of_a_rise(history.entries());
        // What is dropped at the end was trained too.
        let trainable = num_trainable(&method);
        method.finish();
        if let Some(best) = position.best.as_ref().filter(|best| best.epoch != position.epochs) {
            method = self.best_method(&method, &best.digest)?;
        }
        self.check_finite(&method, position.step)?;
        self.save(&method, &self.directory.adapter())?;
        let valid = history.entries().iter().find_map(|entry| match entry {
            Entry::Valid { epoch, metrics, .. } if *epoch == best_epoch => Some(metrics.clone()),
            _ => None,
        });
        let (labels, batch) = (&self.task.labels, self.settings.eval_batch_size);
        let hooks = method.valid();
        let test = data.test.as_ref();
        let test = test
            .map(|test| evaluate(self.model, Under::method(&hooks), test, labels, batch))
            .transpose()?;
        let outcome = Outcome {
            steps: position.step,
            epochs: position.epochs,
            best_epoch,
            train_seconds: position.seconds,
            tokens_per_second: position.tokens as f64 / position.seconds.max(1e-9),
            trainable,
            valid,
            test,
        };
        let path = self.directory.result();
        let text = serde_json::to_string_pretty(&outcome).map_err(|e| Error::file(&path, e))?;
        let text = text + "\n";
        let directory = self.directory.path();
        let adapter = [peft_format::ADAPTER_WEIGHTS, peft_format::ADAPTER_CONFIG];
        let adapter = adapter.map(|name| format!("adapter/{name}"));
        let sums = Sums::of(directory, &adapter.each_ref().map(String::as_str))?;
        // Before the result, which says that the run is finished.
        sums.with("result.json", text.as_bytes()).save(directory)?;
        peft_format::write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
        self.directory.discard_checkpoint()?;
        Ok(outcome)
    }

    /// The best epoch's method, read back from its file into the shape of the last one, which is
    /// finished.
    fn best_method(&self, last: &Stack, digest: &str) -> Result<Stack> {
        let path = self.directory.best().join(peft_format::ADAPTER_WEIGHTS);
        if sums::digest_of(&path)? != digest {
            return Err(Error::damaged(path));
        }
        let mut tensors = peft_format::read_safetensors(&path)?;
        let dialect = self.adapter.config.method.dialect();
        let mut file = peft_core::Exchange::read(&mut tensors).in_dialect(dialect);
        let mut method = last.clone();
        method.exchange(&mut file, self.model.base());
        match file.into_problems().first() {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok(method),
        }
    }
}

/// The value of a metric that a run is to be judged by.
fn has_metric(metric: Metric, metrics: &Metrics) -> Result<f64> {
    metrics.get(metric).ok_or_else(|| {
        let known = metrics.as_map().keys().map(String::as_str).filter(|name| *name != "examples");
        let expected = format!("this task has {}", known.collect::<Vec<_>>().join(", "));
        Error::setting("metric", metric.name(), expected)
    })
}

/// Says so where the loss has risen instead of fallen: an adapter is kept all the same.
fn warn_of_a_rise(entries: &[Entry]) {
    const STEPS: usize = 8;
    let losses = entries.iter().filter_map(|entry| match entry {
        Entry::Step { loss, .. } => Some(f64::from(*loss)),
        Entry::Valid { .. } => None,
    });
    let losses: Vec<f64> = losses.collect();
    let (Some(first), true) = (losses.first(), losses.len() > 1) else { return };
    let last = &losses[losses.len().saturating_sub(STEPS).max(1)..];
    let last = last.iter().sum::<f64>() / last.len() as f64;
    if last > 2.0 * first {
        tracing::warn!(
            "the loss has risen from {first:.4} to {last:.4}: the learning rate is too high, or \
             the data are hard to fit"
        );
    }
}

/// Distinguishes the random state of steps from the order of the data, and what is random there.
const RANDOM_STATE: u64 = 0x5EED_0F57_E950_0001;

/// What changes from step to step.
struct State<'d> {
    position: Position,
    method: Stack,
    optimizer: ModuleOptimizer,
    frozen: Option<Frozen<'d>>,
}

/// What frozen layers make of the texts that are trained on, and of those that judge epochs.
struct Frozen<'d> {
    train: FrozenStates<'d>,
    valid: Option<FrozenStates<'d>>,
}
