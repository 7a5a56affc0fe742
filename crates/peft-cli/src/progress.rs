//! The progress bar of a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use peft::data::metrics::Metric;
use peft::train::{Entry, Observer};

/// A bar with loss, metric, tokens per second and time left; silent where standard error is no
/// terminal.
pub struct Progress {
    /// What judges epochs.
    metric: Metric,
    bar: ProgressBar,
    started: Instant,
    tokens: usize,
    judged: Option<String>,
    loss: Option<f32>,
}

impl Progress {
    /// The bar of a run whose epochs `metric` judges.
    pub fn new(metric: Metric) -> Self {
        let (bar, started) = (ProgressBar::hidden(), Instant::now());
        Self { metric, bar, started, tokens: 0, judged: None, loss: None }
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
        self.bar = ProgressBar::new(total as u64);
        let template = "{bar:24} {pos}/{len} steps  {msg}  {elapsed} of {duration}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_position(done as u64);
        self.bar.reset_eta();
        self.bar.enable_steady_tick(Duration::from_millis(500));
        self.started = Instant::now();
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Step { loss, tokens, .. } => {
                self.tokens += tokens;
                // Smoothed: single batches jump.
                self.loss = Some(self.loss.map_or(*loss, |old| 0.9 * old + 0.1 * loss));
                self.bar.inc(1);
            }
            Entry::Valid { epoch, metrics, .. } => {
                let value = metrics.get(self.metric).unwrap_or(f64::NAN);
                let judged = format!("{} {value:.4}", self.metric.name());
                self.bar.println(format!("epoch {epoch}: {judged}"));
                self.judged = Some(judged);
            }
        }
        self.show();
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
