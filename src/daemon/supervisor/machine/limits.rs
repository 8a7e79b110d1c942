//! Limits of time and memory, judged by what the boards show.

use core::fmt;

use super::timers::Timer;
use super::{Machine, Role, Sample, State, WorkerId};
use crate::daemon::board::Running;
use crate::daemon::control::{Reason, ToWorker};
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages;

/// How often boards are looked at, if nothing calls for more.
pub const SAMPLE_MS: u64 = 1_000;
/// A worker whose GIL is held gets this long to write its stacks before it is killed.
const DUMP_MS: u64 = 1_000;
/// A forked worker has nothing to load.
const FORK_MS: u64 = 30_000;
/// One large request must not cost a worker.
const RSS_SAMPLES: u32 = 3;

/// A request that has run for longer than `request-timeout` allows.
#[derive(Debug)]
pub(super) struct Overdue {
    row: u16,
    number: u32,
    /// When its worker is given up, if it was interrupted.
    interrupted_until: Option<u64>,
}

/// Milliseconds, printed as seconds.
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} s", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// Whether anything of `config` is judged by samples.
pub fn needs_samples(config: &GroupConfig) -> bool {
    config.threads > 0
        && (config.deadlock_timeout > 0
            || config.inactivity_timeout > 0
            || config.request_timeout > 0
            || config.startup_timeout > 0
            || config.max_rss > 0)
}

/// Milliseconds after which a request is overdue. A worker with more threads can afford to let
/// one of them hang for longer.
pub(super) fn request_limit_ms(config: &GroupConfig) -> u64 {
    let factor = 1.0 + f64::from(config.threads.max(1)).ln();
    (f64::from(config.request_timeout) * 1000.0 * factor) as u64
}

impl Machine {
    pub(super) fn sampled(&mut self, id: WorkerId, sample: &Sample) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        if worker.role != Role::Worker
            || worker.killed
            || !matches!(worker.state, State::Serving | State::Leaving)
        {
            return;
        }
        if self.deadlocked(id, sample) {
            return;
        }
        self.judge_requests(id, &sample.running);
        self.judge_startup(id, sample);
        self.judge_idleness(id, sample);
        self.judge_memory(id, sample);
    }

    fn deadlocked(&mut self, id: WorkerId, sample: &Sample) -> bool {
        let limit = u64::from(self.config.deadlock_timeout) * 1000;
        let silent = self.now.saturating_sub(sample.pulse_ms);
        if limit == 0 || sample.pulse_ms == 0 || silent <= limit {
            return false;
        }
        let worker = self.workers.get_mut(&id).expect("looked up by the caller");
        // It may have been found out before, and be writing its stacks.
        if worker.kill_at.is_some_and(|at| at <= self.now + DUMP_MS) {
            return true;
        }
        worker.state = State::Leaving;
        let slot = worker.slot;
        if self.slots[slot].current == Some(id) {
            self.slots[slot].current = None;
            self.slots[slot].not_before = self.now;
        }
        let text = format!(
            "no thread could have the GIL for {} (deadlock-timeout): the stacks follow, then the \
             process is replaced",
            Seconds(silent)
        );
        self.log(Level::Error, Some(messages::DEADLOCK), Some(id), text);
        self.send(id, ToWorker::DumpAll);
        self.kill_after(id, DUMP_MS);
        true
    }

    fn judge_requests(&mut self, id: WorkerId, running: &[Running]) {
        if self.config.request_timeout == 0 {
            return;
        }
        let limit = request_limit_ms(&self.config);
        let interrupt = u64::from(self.config.interrupt_timeout) * 1000;
        let now = self.now;
        let worker = self.workers.get_mut(&id).expect("looked up by the caller");
        let leaving = worker.state == State::Leaving;
        let mut overdue = core::mem::take(&mut worker.overdue);
        overdue.retain(|known| {
            running
                .iter()
                .any(|request| (request.row, request.number) == (known.row, known.number))
        });
        let mut give_up = false;
        // When something of this will be due.
        let mut soonest = u64::MAX;
        for request in running {
            let elapsed = now.saturating_sub(request.since_ms);
            if elapsed <= limit {
                soonest = soonest.min(limit - elapsed + 1);
                continue;
            }
            let (row, number) = (request.row, request.number);
            let text = String::from_utf8_lossy(&request.text);
            let known = overdue
                .iter_mut()
                .find(|known| (known.row, known.number) == (row, number));
            match known {
                None => {
                    let text = format!(
                        "a request has been running for {} (request-timeout): {text}",
                        Seconds(elapsed)
                    );
                    self.log(
                        Level::Warning,
                        Some(messages::REQUEST_OVERDUE),
                        Some(id),
                        text,
                    );
                    self.send(id, ToWorker::DumpRequest { row, number });
                    if interrupt > 0 {
                        soonest = soonest.min(interrupt);
                        self.send(id, ToWorker::Interrupt { row, number });
                    } else {
                        give_up = true;
                    }
                    overdue.push(Overdue {
                        row,
                        number,
                        interrupted_until: (interrupt > 0).then_some(now + interrupt),
                    });
                }
                Some(known) => {
                    if known.interrupted_until.is_some_and(|until| until <= now) {
                        known.interrupted_until = None;
                        give_up = true;
                        let text = format!(
                            "a request goes on after RequestTimeout was raised in it \
                             (interrupt-timeout), so its process is replaced: {text}"
                        );
                        self.log(
                            Level::Warning,
                            Some(messages::INTERRUPT_OVERDUE),
                            Some(id),
                            text,
                        );
                    }
                }
            }
        }
        // What is due later than that is seen by then.
        if soonest < SAMPLE_MS {
            self.timers.add(now + soonest, Timer::Look);
        }
        // Requests that will not end need not be waited for.
        let hopeless = overdue
            .iter()
            .filter(|known| known.interrupted_until.is_none())
            .count();
        let worker = self.workers.get_mut(&id).expect("as above");
        worker.overdue = overdue;
        if leaving && !running.is_empty() && hopeless == running.len() {
            let ms = self.shutdown_ms();
            if ms > 0 {
                self.kill_after(id, ms);
            }
        } else if give_up && self.replace(id, Reason::RequestTimeout) {
            self.info(id, "is to be replaced (request_timeout)".to_owned());
        }
    }

    fn judge_startup(&mut self, id: WorkerId, sample: &Sample) {
        let limit = u64::from(self.config.startup_timeout) * 1000;
        let elapsed = self.now.saturating_sub(sample.first_request_ms);
        if limit == 0 || sample.first_request_ms == 0 || sample.loaded > 0 || elapsed <= limit {
            return;
        }
        if self.replace(id, Reason::StartupTimeout) {
            let text = format!(
                "no script has been loaded {} after the first request (startup-timeout): the \
                 stacks follow, and the process is replaced",
                Seconds(elapsed)
            );
            self.log(
                Level::Error,
                Some(messages::STARTUP_OVERDUE),
                Some(id),
                text,
            );
            self.send(id, ToWorker::DumpAll);
        }
    }

    fn judge_idleness(&mut self, id: WorkerId, sample: &Sample) {
        let limit = u64::from(self.config.inactivity_timeout) * 1000;
        let idle = self.now.saturating_sub(sample.activity_ms);
        if limit == 0 || sample.activity_ms == 0 || !sample.running.is_empty() || idle <= limit {
            return;
        }
        let slot = self.workers[&id].slot;
        if self.slots[slot].want.is_none() && self.replace(id, Reason::InactivityTimeout) {
            let text = format!("had nothing to do for {}", Seconds(idle));
            self.info(id, text + " and is to be replaced (inactivity_timeout)");
        }
    }

    fn judge_memory(&mut self, id: WorkerId, sample: &Sample) {
        let limit = self.config.max_rss;
        let Some(rss) = sample.rss.filter(|_| limit > 0) else {
            return;
        };
        let worker = self.workers.get_mut(&id).expect("looked up by the caller");
        // One that is too large before its first request would be replaced for ever.
        if rss <= limit || sample.started == 0 {
            worker.over_rss = 0;
            return;
        }
        worker.over_rss += 1;
        let slot = worker.slot;
        if worker.over_rss >= RSS_SAMPLES
            && self.slots[slot].want.is_none()
            && self.plan(id, Reason::MaxRss, false)
        {
            let text = format!("has {} MiB in memory and is to be replaced", rss >> 20);
            self.info(id, text + " (max_rss)");
        }
    }

    /// Watches that a new process becomes ready.
    pub(super) fn watch_start(&mut self, id: WorkerId, forked: bool) {
        let ms = match u64::from(self.config.startup_timeout) * 1000 {
            0 if forked => FORK_MS,
            0 => return,
            ms => ms,
        };
        self.timers.add(self.now + ms, Timer::Startup(id));
    }

    pub(super) fn startup_due(&mut self, id: WorkerId) {
        if self.workers.get(&id).map(|worker| worker.state) != Some(State::Starting) {
            return;
        }
        let text =
            "a worker is not ready within startup-timeout: the stacks follow, then it is killed";
        self.log(
            Level::Error,
            Some(messages::STARTUP_OVERDUE),
            Some(id),
            text.to_owned(),
        );
        self.send(id, ToWorker::DumpAll);
        self.kill_after(id, DUMP_MS);
    }

    pub(super) fn interval_due(&mut self, id: WorkerId) {
        if self.plan(id, Reason::RestartInterval, false) {
            self.info(id, "is to be replaced (restart_interval)".to_owned());
        }
    }
}
