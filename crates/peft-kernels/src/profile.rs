//! Where time goes: spans around what is computed, not samples.
//!
//! Every operation of this crate is a span, and callers have theirs around them. A span counts its
//! own time, without that of the spans in it, so that all of them together are the time of the
//! outermost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static IS_ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&str, Time>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Time in the spans within the one that is open.
    static WITHIN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[derive(Debug, Clone, Copy, Default)]
struct Time {
    calls: u64,
    own: Duration,
}

/// What all spans of a name took.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ProfiledPart {
    /// Their name.
    pub name: String,
    /// How many there were.
    pub calls: u64,
    /// Seconds, without those of the spans within them.
    pub seconds: f64,
}

/// Runs `f`; between [`start`] and [`finish`], its time is counted under a name.
pub fn span<T>(name: &'static str, f: impl FnOnce() -> T) -> T {
    if !IS_ON.load(Ordering::Relaxed) {
        return f();
    }
    let around = WITHIN.replace(Duration::ZERO);
    let start = Instant::now();
    let value = f();
    let all = start.elapsed();
    let own = all.saturating_sub(WITHIN.replace(around + all));
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let time = times.entry(name).or_default();
    time.calls += 1;
    time.own += own;
    value
}

/// Begins to count, from nothing.
pub fn start() {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    IS_ON.store(true, Ordering::Relaxed);
}

/// Ends counting: what there was, the longest first.
pub fn finish() -> Vec<ProfiledPart> {
    IS_ON.store(false, Ordering::Relaxed);
    let times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    let part = |(name, Time { calls, own }): (&str, Time)| ProfiledPart {
        name: name.into(),
        calls,
        seconds: own.as_secs_f64(),
    };
    let mut parts: Vec<_> = times.into_iter().map(part).collect();
    parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_without_those_within() {
        let wait = || std::thread::sleep(Duration::from_millis(20));
        span("before the start", wait);
        start();
        let begun = Instant::now();
        span("outer of a test", || {
            wait();
            span("inner of a test", wait);
            span("inner of a test", wait);
        });
        let all = begun.elapsed().as_secs_f64();
        let parts = finish();
        span("after the end", wait);
        let of = |name: &str| parts.iter().find(|part| part.name == name).expect("a part");
        let (outer, inner) = (of("outer of a test"), of("inner of a test"));
        assert_eq!((outer.calls, inner.calls), (1, 2));
        assert!(outer.seconds >= 0.02 && inner.seconds >= 0.04);
        assert!(outer.seconds + inner.seconds <= all);
        assert!(parts.iter().all(|part| !part.name.contains("the ")));
    }
}
