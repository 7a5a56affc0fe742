//! The progress of a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use peft::data::metrics::Metric;
use peft::train::{Entry, Observer};

use crate::output::note;
use crate::stop::Stop;

/// A line for each epoch, and on a terminal a bar with loss, metric, tokens per second and time left.
pub struct Progress {
    /// What judges epochs.
    metric: Metric,
    /// Whether nothing is shown.
    quiet: bool,
    stop: Stop,
    bar: ProgressBar,
    started: Instant,
    tokens: usize,
    judged: Option<String>,
    loss: Option<f32>,
    /// The losses of the epoch's steps.
    losses: Vec<f32>,
}

impl Progress {
    /// The progress of a run whose epochs `metric` judges, and which `stop` ends.
    pub fn new(metric: Metric, stop: Stop) -> Self {
        Self {
            metric,
            quiet: false,
            stop,
            bar: ProgressBar::hidden(),
            started: Instant::now(),
            tokens: 0,
            judged: None,
            loss: None,
            losses: Vec::new(),
        }
    }

    /// The same where nothing is shown, if `quiet`.
    pub fn quiet(self, quiet: bool) -> Self {
        Self { quiet, ..self }
    }

    fn show(&self) {
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let loss = self.loss.map_or(String::new(), |loss| format!("loss {loss:.4}  "));
        let judged = self.judged.as_ref().map_or(String::new(), |judged| format!("{judged}  "));
        self.bar.set_message(format!("{loss}{judged}{rate:.0} tokens/s"));
    }
}

impl Observer for Progress {
    fn begin(&mut self, done: usize, total: usize) {
        self.started = Instant::now();
        if self.quiet {
            return;
        }
        self.bar = ProgressBar::new(total as u64);
        let template = "{bar:24} {pos}/{len} steps  {msg}  {elapsed} of {duration}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_position(done as u64);
        self.bar.reset_eta();
        self.bar.enable_steady_tick(Duration::from_millis(500));
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Step { loss, tokens, .. } => {
                self.tokens += tokens;
                // Smoothed: single batches jump.
                self.loss = Some(self.loss.map_or(*loss, |old| 0.9 * old + 0.1 * loss));
                self.losses.push(*loss);
                self.bar.inc(1);
            }
            Entry::Valid { metrics, .. } => {
                let value = metrics.get(self.metric);
                self.judged = value.map(|value| format!("{} {value:.4}", self.metric.name()));
            }
        }
        self.show();
    }

    fn epoch(&mut self, epoch: usize, epochs: usize) {
        let losses = std::mem::take(&mut self.losses);
        let loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        let judged = self.judged.as_ref().map_or(String::new(), |judged| format!(", {judged}"));
        let line = format!("epoch {epoch} of {epochs}: loss {loss:.4}{judged}");
        match self.bar.is_hidden() {
            _ if self.quiet => {}
            true => note(line),
            false => self.bar.println(line),
        }
    }

    fn stops(&mut self) -> bool {
        self.stop.is_asked()
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
