//! The progress bar of a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar with loss, metric, tokens per second and time left; silent when it is not wanted or
/// standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    tokens: usize,
    metric: Option<String>,
    loss: Option<f32>,
}

impl Progress {
    pub(crate) fn new(total: usize, done: usize, visible: bool) -> Self {
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let template = "{bar:24} {pos}/{len} steps  {msg}  {elapsed} of {duration}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_position(done as u64);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, started: Instant::now(), tokens: 0, metric: None, loss: None }
    }

    pub(crate) fn step(&mut self, loss: f32, tokens: usize) {
        self.tokens += tokens;
        // Smoothed: single batches jump.
        self.loss = Some(self.loss.map_or(loss, |old| 0.9 * old + 0.1 * loss));
        self.bar.inc(1);
        self.show();
    }

    pub(crate) fn evaluated(&mut self, metric: String) {
        self.metric = Some(metric);
        self.show();
    }

    fn show(&self) {
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let loss = self.loss.map_or(String::new(), |loss| format!("loss {loss:.4}  "));
        let metric = self.metric.as_ref().map_or(String::new(), |m| format!("{m}  "));
        self.bar.set_message(format!("{loss}{metric}{rate:.0} tokens/s"));
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, line: impl AsRef<str>) {
        self.bar.println(line);
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
