//! Batches, made while the steps before theirs run.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use burn::tensor::Device;
use peft_data::{Batch, TokenizedSet, mix};

use super::checkpoint::Position;
use crate::Result;

/// Which batches the steps of a run are over, in which order.
pub(super) struct Plan<'d> {
    pub(super) data: &'d TokenizedSet,
    pub(super) batch_size: usize,
    pub(super) by_length: bool,
    /// Batches in a step.
    pub(super) accumulate: usize,
    pub(super) epochs: usize,
    pub(super) seed: u64,
    pub(super) device: Device,
}

/// The batches of one step after another.
pub(super) struct Ahead(Receiver<Result<Vec<Batch>>>);

/// Steps whose batches may wait; those of one more are being made.
const WAITING: usize = 1;

impl<'d> Plan<'d> {
    /// The number of batches of an epoch, whichever it is.
    pub(super) fn batches(&self) -> usize {
        self.data.shuffled(self.batch_size, self.by_length, self.seed, 0).len()
    }

    /// Begins to make what follows `position`, on a thread of its own. It ends behind the last
    /// epoch, at the first error, and when nobody waits any more.
    pub(super) fn ahead<'s>(self, scope: &'s Scope<'s, '_>, position: &Position) -> Ahead
    where
        'd: 's,
    {
        let (sender, receiver) = sync_channel(WAITING);
        let (begun, mut done) = (position.epochs, position.batches);
        scope.spawn(move || {
            for epoch in begun..self.epochs {
                let order = self.data.shuffled(self.batch_size, self.by_length, self.seed, epoch);
                let order: Vec<&[usize]> = order.iter().skip(done).collect();
                done = 0;
                for step in order.chunks(self.accumulate) {
                    let batches = self.step(epoch, step);
                    let is_last = batches.is_err();
                    if sender.send(batches).is_err() || is_last {
                        return;
                    }
                }
            }
        });
        Ahead(receiver)
    }

    fn step(&self, epoch: usize, step: &[&[usize]]) -> Result<Vec<Batch>> {
        // Which words are hidden changes from epoch to epoch.
        let draw = mix(self.seed ^ RANDOM_DATA, epoch as u64);
        let batch = |indices: &&[usize]| Ok(self.data.batch(indices, draw, &self.device)?);
        step.iter().map(batch).collect()
    }
}

impl Ahead {
    /// The batches of the next step.
    ///
    /// # Errors
    /// If one cannot be made.
    ///
    /// # Panics
    /// If there is no further step.
    pub(super) fn next(&self) -> Result<Vec<Batch>> {
        self.0.recv().expect("batches for every step")
    }
}

/// Distinguishes what is random in the data from their order, and from the steps.
const RANDOM_DATA: u64 = 0x5EED_0F57_E950_0002;
