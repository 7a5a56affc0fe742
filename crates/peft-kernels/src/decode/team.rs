//! Threads that stand by for work of a few microseconds.
//!
//! An operation on one token is too short to wake a thread for, which takes as long. The threads of
//! the team wait for the next one awake, for a moment, and sleep where none comes. Nobody waits for
//! a thread that comes late: its tasks are done by those that are there.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{Builder, Thread, park};

/// How often a thread looks for work before it sleeps: some tens of microseconds.
const LOOKS: usize = 4000;

/// Runs `f` for each number below `count`, on all cores.
pub(crate) fn share(count: usize, f: impl Fn(usize) + Sync) {
    let team = Team::all();
    let leads = match team.leader.try_lock() {
        Ok(leads) => Some(leads),
        // A task has panicked, and all was put in order before that went on.
        Err(TryLockError::Poisoned(leads)) => Some(leads.into_inner()),
        // Others have the team.
        Err(TryLockError::WouldBlock) => None,
    };
    match leads {
        Some(_leads) if count > 1 && !team.members.is_empty() => team.run(count, &f),
        _ => (0..count).for_each(f),
    }
}

/// How many threads take part.
pub(crate) fn size() -> usize {
    Team::all().members.len() + 1
}

type Task<'a> = &'a (dyn Fn(usize) + Sync + 'a);

struct Team {
    /// Held by whoever has work.
    leader: Mutex<()>,
    board: &'static Board,
    members: Vec<Member>,
}

struct Member {
    thread: Thread,
    asleep: &'static AtomicBool,
}

/// Where the leader shows the work.
struct Board {
    /// Odd while there is work.
    epoch: AtomicUsize,
    /// Members that look at the work, or are about to.
    active: AtomicUsize,
    /// The next task.
    next: AtomicUsize,
    work: UnsafeCell<Work>,
    /// What a task of a member panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Work {
    task: Option<Task<'static>>,
    count: usize,
}

// SAFETY: the work is written by the leader alone, while the epoch is even and no member is active;
// members read it only while they are active in an odd epoch.
unsafe impl Sync for Board {}

impl Board {
    /// Does tasks until none is left.
    fn help(&self, work: Work) {
        let Some(task) = work.task else { return };
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= work.count {
                return;
            }
            task(number);
        }
    }

    /// What a member does, for ever.
    fn stand_by(&self, asleep: &AtomicBool) {
        let mut seen = 0;
        loop {
            seen = self.wait(seen, asleep);
            self.active.fetch_add(1, Ordering::SeqCst);
            // The leader closes the epoch before it looks whether anybody is active: either it
            // waits for this member, or the member finds the epoch closed.
            if self.epoch.load(Ordering::SeqCst) == seen {
                // SAFETY: the epoch is open and this member active, so the leader does not write.
                let work = unsafe { *self.work.get() };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.help(work))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
            self.active.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The next epoch with work after the one that was `seen`.
    fn wait(&self, seen: usize, asleep: &AtomicBool) -> usize {
        let open = || {
            let epoch = self.epoch.load(Ordering::SeqCst);
            (epoch != seen && epoch % 2 == 1).then_some(epoch)
        };
        loop {
            for _ in 0..LOOKS {
                if let Some(epoch) = open() {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            // The leader opens the epoch before it looks who sleeps.
            asleep.store(true, Ordering::SeqCst);
            if open().is_none() {
                park();
            }
            asleep.store(false, Ordering::SeqCst);
        }
    }
}

impl Team {
    /// As many threads as the other parallel operations use, with the one that asks.
    fn all() -> &'static Self {
        static TEAM: OnceLock<Team> = OnceLock::new();
        TEAM.get_or_init(|| {
            let board: &'static Board = Box::leak(Box::new(Board {
                epoch: AtomicUsize::new(0),
                active: AtomicUsize::new(0),
                next: AtomicUsize::new(0),
                work: UnsafeCell::new(Work { task: None, count: 0 }),
                panic: Mutex::new(None),
            }));
            let member = |number: usize| {
                let asleep: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
                let name = format!("peft-team-{number}");
                // Where no thread can be had, the team is smaller.
                let handle = Builder::new().name(name).spawn(|| board.stand_by(asleep)).ok()?;
                Some(Member { thread: handle.thread().clone(), asleep })
            };
            let members = (1..rayon::current_num_threads()).filter_map(member).collect();
            Team { leader: Mutex::new(()), board, members }
        })
    }

    /// Runs `count` tasks; only for the leader.
    fn run(&self, count: usize, task: Task<'_>) {
        let board = self.board;
        // SAFETY: the same reference, said to live longer: it is gone from the board, and no member
        // has it any more, when this function returns.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        let work = Work { task: Some(task), count };
        board.next.store(0, Ordering::Relaxed);
        // SAFETY: the epoch is even and, as the last leader has waited for, no member reads.
        unsafe { *board.work.get() = work };
        board.epoch.fetch_add(1, Ordering::SeqCst);
        for member in &self.members {
            if member.asleep.swap(false, Ordering::SeqCst) {
                member.thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| board.help(work)));
        board.epoch.fetch_add(1, Ordering::SeqCst);
        while board.active.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
        let of_member = board.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(of_member) {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_task_is_done_once_whoever_asks() {
        let ask = || {
            for round in 0..300 {
                let count = round % 7;
                let done: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
                share(count, |number| {
                    done[number].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
                if round % 100 == 0 {
                    // Long enough for the members to fall asleep.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        };
        std::thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(ask)));
        });
    }

    #[test]
    fn a_panic_reaches_who_asked_and_the_team_goes_on() {
        for _ in 0..20 {
            let panicking = || share(8, |number| assert!(number != 3, "three"));
            assert!(catch_unwind(panicking).is_err());
            let sum = AtomicUsize::new(0);
            share(8, |number| {
                sum.fetch_add(number, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }
}
