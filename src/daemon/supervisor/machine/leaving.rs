//! Workers that leave, and the end of the group.

use super::death::{Death, Ended};
use super::timers::Timer;
use super::{Action, Machine, Role, State, WorkerId};
use crate::daemon::control::{Reason, ToWorker};
use crate::exchange::Level;
use crate::messages;

/// A process that only has to call exit gets this long.
const EXIT_MS: u64 = 5_000;
/// More than its own limit for exit handlers.
const EXIT_MARGIN_MS: u64 = 500;
/// What has not begun to serve has nothing to lose.
const STARTING_EXIT_MS: u64 = 1_000;

/// The group ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// By a signal, not because no client is left.
    signalled: bool,
    /// [`Action::End`] has been given.
    over: bool,
}

impl Machine {
    /// Milliseconds that exit handlers may take; 0: for ever. The worker has a watchdog of its own,
    /// which says more, so it comes first.
    pub(super) fn shutdown_ms(&self) -> u64 {
        match u64::from(self.config.shutdown_timeout) * 1000 {
            0 => 0,
            ms => ms + EXIT_MARGIN_MS,
        }
    }

    /// Milliseconds until a process without requests must have ended.
    pub(super) fn exit_ms(&self) -> u64 {
        self.shutdown_ms().max(EXIT_MS)
    }

    /// Milliseconds that a worker gets for its running requests and its exit handlers.
    fn drain_ms(&self, reason: Reason) -> Option<u64> {
        let config = &self.config;
        let requests = match reason {
            Reason::StartupTimeout | Reason::DeadlockTimeout => 0,
            Reason::EvictionSignal if config.eviction_timeout > 0 => config.eviction_timeout,
            _ => config.graceful_timeout,
        };
        let total = u64::from(requests) * 1000 + self.shutdown_ms();
        (total > 0).then_some(total)
    }

    /// The process is killed if it still lives then; an earlier deadline stays.
    pub(super) fn kill_after(&mut self, id: WorkerId, ms: u64) {
        let at = self.now + ms;
        if let Some(worker) = self.workers.get_mut(&id) {
            if worker.kill_at.is_none_or(|earlier| at < earlier) {
                worker.kill_at = Some(at);
                self.timers.add(at, Timer::Kill(id));
            }
        }
    }

    /// Tells a worker to end when it has answered its requests.
    pub(super) fn drain(&mut self, id: WorkerId, reason: Reason) {
        self.send(id, ToWorker::Drain { reason });
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = State::Leaving;
        }
        if let Some(ms) = self.drain_ms(reason) {
            self.kill_after(id, ms);
        }
    }

    /// The worker has got a signal and drains without being told: its slot is free.
    pub(super) fn leaves_by_itself(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.role != Role::Worker || !matches!(worker.state, State::Serving | State::Ready) {
            return;
        }
        worker.state = State::Leaving;
        let slot = &mut self.slots[worker.slot];
        slot.not_before = self.now;
        for place in [&mut slot.current, &mut slot.next] {
            if *place == Some(id) {
                *place = None;
            }
        }
        self.info(id, "ends by itself (shutdown_signal)".to_owned());
        if let Some(ms) = self.drain_ms(Reason::GracefulSignal) {
            self.kill_after(id, ms);
        }
    }

    /// It has answered all; only its exit handlers run.
    pub(super) fn drained(&mut self, id: WorkerId) {
        self.leaves_by_itself(id);
        let ms = self.shutdown_ms();
        if let Some(worker) = self.workers.get_mut(&id) {
            if worker.state == State::Leaving && !worker.killed {
                worker.kill_at = None;
                if ms > 0 {
                    self.kill_after(id, ms);
                }
            }
        }
    }

    /// A process has closed its channel: it ends, or is of no use any more.
    pub(super) fn silent(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        if worker.pid.is_none() {
            // A forked worker that never said which process it is: its death cannot be seen.
            let death = Death {
                ended: Ended::Unknown,
                out_of_memory: false,
                out_of_cpu_time: false,
                last_words: None,
                running: Vec::new(),
            };
            self.died(id, &death);
        } else if worker.kill_at.is_none() && worker.role != Role::Service {
            if worker.role == Role::Template {
                let since = worker.serving_since;
                self.template_lost(id, since);
            }
            self.kill_after(id, self.exit_ms());
        }
    }

    pub(super) fn kill_due(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.killed || worker.kill_at.is_none_or(|at| at > self.now) {
            return;
        }
        worker.killed = true;
        let text = "a worker has not ended in time and is killed; its requests, if any, follow";
        self.log(
            Level::Warning,
            Some(messages::WORKER_KILLED),
            Some(id),
            text.to_owned(),
        );
        self.actions.push(Action::LogRunning { worker: id });
        self.kill(id, libc::SIGKILL);
    }

    pub(super) fn kill(&mut self, worker: WorkerId, signal: i32) {
        self.actions.push(Action::Kill { worker, signal });
    }

    /// Tells a service script to end; it is started again when it has.
    pub(super) fn end_service(&mut self, id: WorkerId) {
        self.kill(id, libc::SIGTERM);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.told = true;
        }
        let ms = self.exit_ms();
        self.kill_after(id, ms);
    }

    /// SIGTERM: running requests and exit handlers get `shutdown-timeout` together. Again: nothing.
    pub(super) fn terminate(&mut self) {
        let again = match &mut self.ending {
            Some(ending) => core::mem::replace(&mut ending.signalled, true),
            None => {
                self.end_group(true);
                false
            }
        };
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        if again {
            self.log(
                Level::Warning,
                Some(messages::KILLED_ALL),
                None,
                "a second signal to end: the workers that are left are killed".to_owned(),
            );
            for id in ids {
                self.actions.push(Action::LogRunning { worker: id });
                self.kill(id, libc::SIGKILL);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.killed = true;
                }
            }
            return;
        }
        let ms = self.shutdown_ms();
        if ms > 0 {
            for id in ids {
                self.kill_after(id, ms);
            }
        }
    }

    /// The lifeline is at its end.
    pub(super) fn clients_gone(&mut self) {
        if self.ending.is_none() {
            self.end_group(false);
        }
    }

    fn end_group(&mut self, signalled: bool) {
        let why = if signalled {
            "a signal to end"
        } else {
            "no client is left"
        };
        self.log(Level::Info, None, None, format!("{why}: the group ends"));
        self.ending = Some(Ending {
            signalled,
            over: false,
        });
        let all: Vec<(WorkerId, Role, State)> = self
            .workers
            .iter()
            .map(|(id, worker)| (*id, worker.role, worker.state))
            .collect();
        for (id, role, state) in all {
            match (role, state) {
                (_, State::Leaving) => {}
                (Role::Service, _) => self.end_service(id),
                (_, State::Starting) => {
                    self.kill(id, libc::SIGTERM);
                    self.kill_after(id, STARTING_EXIT_MS);
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.state = State::Leaving;
                    }
                }
                _ => self.drain(id, Reason::ShutdownSignal),
            }
        }
    }

    pub(super) fn end_if_empty(&mut self) {
        if let Some(ending) = &mut self.ending {
            if self.workers.is_empty() && !ending.over {
                ending.over = true;
                self.actions.push(Action::End);
            }
        }
    }
}
