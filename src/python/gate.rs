//! First come, first served for requests that are about to begin.
//!
//! CPython's GIL has no queue: a thread that has just finished a request takes it again before
//! those that wait have woken, and the tail of the latencies is ten times the median. Measured,
//! Django on one core: p99 57 ms without the gate, 7 ms with it.
//!
//! A permit is held only while a new request waits for the GIL. Work in progress that comes back
//! from I/O does not pass the gate: it shall overtake work not begun, so that requests end sooner.
//! The gate never limits how many requests are inside Python.
//!
//! Requests that compute give the GIL up every 5 ms only, and CPython hands it to whoever has waited
//! longest, mostly another one of them: with three such requests a short one waits for 15 ms. But
//! every release of the GIL wakes one waiting thread, and of several that are awake the kernel runs the one
//! first that has used least of the processor: the short request. (That is why mod_wsgi, which
//! releases the GIL many times in every request, served twice as many short requests here.) So a
//! request that had to wait long releases the GIL a few times more when it is done, and opens the
//! gate for all that queue ([`Gate::let_in`]). Measured beside three requests that compute: 420 short
//! requests a second without, 990 with, mod_wsgi 790.
//!
//! To be called in order costs a thread a sleep and a waking, as much as a request that takes some
//! ten microseconds. In daemon mode, where the threads that may wait are few, such requests pass by
//! (measured, 64 connections on 15 threads: 34,000 a second against 23,000, and half the p99).

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

/// Requests that take less than this, in microseconds, need not be served in order.
const SHORT_US: i64 = 64;
/// The mean of so many requests, about, decides.
const MEAN_OF: i64 = 16;

/// A counting semaphore whose waiters are served in order.
pub struct Gate {
    /// Free permits; negative: so many threads wait or are about to.
    free: AtomicI32,
    /// Whether there is no limit at all.
    open: bool,
    /// Whether short requests pass by, and how long the last ones took, in sixteenths of
    /// microseconds.
    lets_short_pass: bool,
    mean: AtomicI64,
    /// Permits that [`Gate::let_in`] has given beyond the limit: as many are not given back.
    extra: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Arc<Waiter>>,
    /// Permits that were released for a thread that had not queued yet.
    handed_on: u32,
}

struct Waiter {
    thread: Thread,
    called: AtomicBool,
}

impl Waiter {
    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The right to wait for the GIL; given back when dropped.
pub struct Permit<'a>(Option<&'a Gate>);

impl Gate {
    /// A gate with `permits`; 0 means no limit. `lets_short_pass`: while requests are short
    /// ([`Gate::note`]) there is no limit either.
    pub fn new(permits: u32, lets_short_pass: bool) -> Self {
        Gate {
            free: AtomicI32::new(i32::try_from(permits).unwrap_or(i32::MAX)),
            open: permits == 0,
            lets_short_pass,
            mean: AtomicI64::new(SHORT_US * MEAN_OF),
            extra: AtomicU32::new(0),
            queue: Mutex::default(),
        }
    }

    /// Waits for a permit. Must not be called with the GIL held.
    #[inline]
    pub fn enter(&self) -> Permit<'_> {
        if self.open || self.requests_are_short() {
            return Permit(None);
        }
        if self.free.fetch_sub(1, Ordering::Acquire) <= 0 {
            self.wait();
        }
        Permit(Some(self))
    }

    #[inline]
    fn requests_are_short(&self) -> bool {
        self.lets_short_pass && self.mean.load(Ordering::Relaxed) < SHORT_US * MEAN_OF
    }

    /// Whether it wants to know how long requests take.
    #[inline]
    pub fn learns(&self) -> bool {
        self.lets_short_pass && !self.open
    }

    /// A request has taken so long, from when its thread had the GIL. Threads may overwrite each
    /// other's note: it is a mean, no account.
    #[inline]
    pub fn note(&self, microseconds: i64) {
        let mean = self.mean.load(Ordering::Relaxed);
        let known = mean - mean / MEAN_OF + microseconds.clamp(0, 1_000_000);
        self.mean.store(known, Ordering::Relaxed);
    }

    #[cold]
    fn wait(&self) {
        let waiter = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.handed_on > 0 {
                queue.handed_on -= 1;
                return;
            }
            let waiter = Arc::new(Waiter {
                thread: std::thread::current(),
                called: AtomicBool::new(false),
            });
            queue.waiters.push_back(Arc::clone(&waiter));
            waiter
        };
        while !waiter.called.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// Lets all in that queue now, whatever the limit.
    pub fn let_in(&self) {
        let waiters = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let waiters = core::mem::take(&mut queue.waiters);
            self.extra.fetch_add(waiters.len() as u32, Ordering::AcqRel);
            self.free.fetch_add(waiters.len() as i32, Ordering::AcqRel);
            waiters
        };
        for waiter in waiters {
            waiter.call();
        }
    }

    /// Takes back a permit beyond the limit, if there is one.
    fn swallow(&self) -> bool {
        self.extra.load(Ordering::Acquire) > 0
            && self
                .extra
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |extra| {
                    extra.checked_sub(1)
                })
                .is_ok()
    }

    #[cold]
    fn call_next(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.waiters.pop_front() {
            Some(waiter) => {
                drop(queue);
                waiter.call();
            }
            None => queue.handed_on += 1,
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(gate) = self.0
            && !gate.swallow()
            && gate.free.fetch_add(1, Ordering::Release) < 0
        {
            gate.call_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, SHORT_US};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_than_the_permits_and_all_come_through() {
        let gate = Gate::new(2, false);
        let (inside, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _permit = gate.enter();
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(done.load(Ordering::SeqCst), 16_000);
    }

    #[test]
    fn waiters_are_served_in_order() {
        let gate = Gate::new(1, false);
        let order = Mutex::new(Vec::new());
        let (gate, order) = (&gate, &order);
        std::thread::scope(|scope| {
            let held = gate.enter();
            for number in 0..5 {
                scope.spawn(move || {
                    let _permit = gate.enter();
                    order.lock().unwrap().push(number);
                });
                // The next one starts only when this one is in the queue.
                while gate.queue.lock().unwrap().waiters.len() <= number {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn all_that_queue_can_be_let_in_and_the_limit_holds_again() {
        let gate = &Gate::new(1, false);
        let passed = &AtomicUsize::new(0);
        let first = gate.enter();
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || {
                    let _permit = gate.enter();
                    passed.fetch_add(1, Ordering::SeqCst);
                });
                while gate.queue.lock().unwrap().waiters.len() <= number {
                    std::thread::yield_now();
                }
            }
            gate.let_in();
        });
        assert_eq!(passed.load(Ordering::SeqCst), 4);
        drop(first);
        assert_eq!(gate.free.load(Ordering::SeqCst), 1);
        assert_eq!(gate.extra.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn zero_permits_means_open() {
        let gate = Gate::new(0, false);
        let _many: Vec<_> = (0..100).map(|_| gate.enter()).collect();
    }

    #[test]
    fn short_requests_pass_by() {
        let gate = Gate::new(1, true);
        // Nothing is known yet.
        assert!(gate.enter().0.is_some());
        (0..200).for_each(|_| gate.note(SHORT_US / 2));
        let _first = gate.enter();
        let second = gate.enter();
        assert!(second.0.is_none());
        (0..200).for_each(|_| gate.note(SHORT_US * 2));
        assert!(gate.enter().0.is_some());
    }
}
