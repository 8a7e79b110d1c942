//! A heap of deadlines, and growing delays.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use super::WorkerId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A slot may start a worker.
    Start(usize),
    /// The template may be started.
    Template,
    /// A worker must have ended.
    Kill(WorkerId),
    /// A worker must have become ready.
    Startup(WorkerId),
    /// Something on a board will be due.
    Look,
    /// A worker has served for `restart-interval`.
    Interval(WorkerId),
}

/// Deadlines in order. A timer is not taken back: whoever handles it looks whether it still means
/// anything.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, Timer)>>);

impl Timers {
    pub(super) fn add(&mut self, at: u64, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: u64) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }
}

/// A delay that doubles with every failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    first_ms: u64,
    most_ms: u64,
    failures: u32,
}

impl Delay {
    pub(super) const fn new(first_ms: u64, most_ms: u64) -> Delay {
        Delay {
            first_ms,
            most_ms,
            failures: 0,
        }
    }

    /// One more failure: how long to wait.
    pub(super) fn grow(&mut self) -> u64 {
        let delay = self.first_ms << self.failures.min(20);
        self.failures += 1;
        delay.min(self.most_ms)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
