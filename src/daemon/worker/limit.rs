//! `maximum-requests`: a warning early enough for a replacement to be ready, then a full stop.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts requests against a limit.
pub struct Limit {
    started: AtomicU64,
    /// No request beyond this is started; `u64::MAX` without a limit.
    last: AtomicU64,
    /// When so many have been started, a replacement is asked for.
    warning: u64,
    /// How much further the worker goes when it is told to go on.
    step: u64,
}

/// What a request means for the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Go on.
    Free,
    /// Go on, and ask for a replacement.
    Warn,
    /// Go on; no other request may be started.
    Last,
    /// Not to be started.
    Beyond,
}

impl Limit {
    /// `maximum` requests; 0 is no limit.
    pub fn new(maximum: u64) -> Limit {
        let tenth = maximum / 10;
        Limit {
            started: AtomicU64::new(0),
            last: AtomicU64::new(if maximum == 0 { u64::MAX } else { maximum }),
            warning: match maximum {
                0 => u64::MAX,
                _ => maximum - tenth.max(1).min(maximum - 1),
            },
            step: tenth + 1,
        }
    }

    /// A request is about to be started.
    #[inline]
    pub fn start(&self) -> Start {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.last.load(Ordering::Relaxed);
        if number < self.warning {
            Start::Free
        } else if number > last {
            self.started.fetch_sub(1, Ordering::Relaxed);
            Start::Beyond
        } else if number == last {
            Start::Last
        } else if number == self.warning {
            Start::Warn
        } else {
            Start::Free
        }
    }

    /// A request was not started after all.
    pub fn undo(&self) {
        self.started.fetch_sub(1, Ordering::Relaxed);
    }

    /// The worker goes on for a while.
    pub fn extend(&self) {
        if self.last.load(Ordering::Relaxed) != u64::MAX {
            let started = self.started.load(Ordering::Relaxed);
            self.last.store(started + self.step, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(limit: &Limit, count: usize) -> Vec<Start> {
        (0..count).map(|_| limit.start()).collect()
    }

    #[test]
    fn no_limit_is_no_limit() {
        let limit = Limit::new(0);
        assert!(
            starts(&limit, 1000)
                .iter()
                .all(|start| *start == Start::Free)
        );
        limit.extend();
        assert_eq!(limit.start(), Start::Free);
    }

    #[test]
    fn a_warning_then_a_stop_then_a_little_more() {
        let limit = Limit::new(20);
        let all = starts(&limit, 22);
        assert_eq!(all[17], Start::Warn);
        assert!(
            all[..17]
                .iter()
                .chain(&all[18..19])
                .all(|start| *start == Start::Free)
        );
        assert_eq!(all[19..], [Start::Last, Start::Beyond, Start::Beyond]);
        limit.extend();
        assert_eq!(
            starts(&limit, 4),
            [Start::Free, Start::Free, Start::Last, Start::Beyond]
        );
    }

    #[test]
    fn small_limits() {
        let limit = Limit::new(1);
        assert_eq!(starts(&limit, 2), [Start::Last, Start::Beyond]);
        let limit = Limit::new(2);
        assert_eq!(starts(&limit, 3), [Start::Warn, Start::Last, Start::Beyond]);
        limit.extend();
        assert_eq!(starts(&limit, 2), [Start::Last, Start::Beyond]);
    }

    #[test]
    fn what_is_undone_does_not_count() {
        let limit = Limit::new(2);
        limit.start();
        limit.undo();
        assert_eq!(starts(&limit, 3), [Start::Warn, Start::Last, Start::Beyond]);
    }
}
