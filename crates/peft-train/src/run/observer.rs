//! Who is told what happens in a run.

use super::Entry;

/// Is told what happens in a run, as it happens: a progress bar, say. What an observer does not
/// implement, it does not see; `()` sees nothing.
pub trait Observer {
    /// Training begins, or is resumed, after `done` of at most `total` optimizer steps.
    fn begin(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }

    /// A step is done, or the validation data of an epoch are evaluated: the line of the log.
    fn entry(&mut self, entry: &Entry) {
        let _ = entry;
    }

    /// Training is over; the adapter that is kept has yet to be written and tested.
    fn end(&mut self) {}
}

impl Observer for () {}
