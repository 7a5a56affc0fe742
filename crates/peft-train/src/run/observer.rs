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

    /// An epoch of `epochs` is done, counted from 1, and the validation data are evaluated.
    fn epoch(&mut self, epoch: usize, epochs: usize) {
        let _ = (epoch, epochs);
    }

    /// Whether training should stop now: asked after each step. It does at a checkpoint, with
    /// [`Error::Stopped`](crate::Error::Stopped).
    fn stops(&mut self) -> bool {
        false
    }

    /// Training is over; the adapter that is kept has yet to be written and tested.
    fn end(&mut self) {}
}

impl Observer for () {}
