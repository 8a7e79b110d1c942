//! Workers that do not start, and workers that die.

use super::{Death, Machine, Role, Seconds, State, WorkerId};
use crate::daemon::control::Reason;
use crate::exchange::Level;
use crate::messages::{self, Code};

/// A worker that dies within this time of its start is not started again at once.
const SHORT_LIFE_MS: u64 = 1_000;

/// The same for a service script, which may have ended on purpose.
const SHORT_SERVICE_MS: u64 = 10_000;

/// One line, or a line and the lines of the reason, which may be a traceback.
pub(super) fn with_reason(what: &str, reason: &str) -> String {
    format!("{what}: {reason}")
}

impl Machine {
    pub(super) fn failed(&mut self, id: WorkerId, text: &str) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.state != State::Starting {
            // A service script may say why it ends; its death is handled when it comes.
            self.complain(messages::WORKER_FAILED, id, None, text.to_owned());
            return;
        }
        let role = worker.role;
        let slot = worker.slot;
        let replaces = worker.replaces;
        worker.state = State::Leaving;
        self.kill_after(id, self.exit_ms());
        if role == Role::Template {
            self.template_failed(id, messages::TEMPLATE_FAILED, text);
        } else {
            self.slots[slot].next = None;
            self.start_failed(id, slot, replaces, messages::WORKER_FAILED, text);
        }
    }

    pub(super) fn not_spawned(&mut self, id: WorkerId, why: &str) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        let slot = worker.slot;
        match worker.role {
            Role::Template => self.template_failed(id, messages::WORKER_NOT_SPAWNED, why),
            Role::Service => {
                self.slots[slot].current = None;
                self.complain(messages::WORKER_NOT_SPAWNED, id, None, why.to_owned());
                self.back_off(slot);
            }
            Role::Worker => {
                self.slots[slot].next = None;
                let reason = worker.replaces;
                self.start_failed(id, slot, reason, messages::WORKER_NOT_SPAWNED, why);
            }
        }
    }

    fn start_failed(
        &mut self,
        id: WorkerId,
        slot: usize,
        reason: Option<Reason>,
        code: Code,
        text: &str,
    ) {
        match (self.slots[slot].current, reason) {
            (Some(current), Some(reason)) => {
                self.replacement_failed(id, slot, current, reason, text);
            }
            // The one that it was to replace has died meanwhile: now everything will do that starts.
            (None, Some(_)) => self.start_complaint(id, code, text),
            _ => {
                self.start_complaint(id, code, text);
                self.back_off(slot);
            }
        }
    }

    pub(super) fn start_complaint(&mut self, id: WorkerId, code: Code, text: &str) {
        let text = match code {
            messages::WORKER_FAILED => with_reason("a worker could not begin", text),
            messages::TEMPLATE_FAILED => with_reason("the template could not begin", text),
            _ => text.to_owned(),
        };
        self.complain(code, id, None, text);
    }

    pub(super) fn died(&mut self, id: WorkerId, death: &Death) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        let slot = worker.slot;
        let how = death.describe(worker.killed);
        if worker.role == Role::Template {
            self.template_died(id, &worker, &how);
            return;
        }
        match worker.state {
            State::Starting => {
                self.slots[slot].next = None;
                let text = format!("a worker ended before it was ready, {how}");
                let code = messages::WORKER_DIED_STARTING;
                self.start_failed(id, slot, worker.replaces, code, &text);
            }
            State::Ready => {
                self.slots[slot].next = None;
                self.dead(id, death, &how);
                let delay = self.slots[slot].retries.grow();
                self.not_before(slot, self.now + delay);
            }
            State::Serving => {
                self.slots[slot].current = None;
                let lived = self.now - worker.serving_since;
                let told = worker.told;
                let short = if worker.role == Role::Service {
                    SHORT_SERVICE_MS
                } else {
                    SHORT_LIFE_MS
                };
                if told || (death.is_clean() && self.ending.is_none()) {
                    self.info(id, format!("ended {how}"));
                } else {
                    self.dead(id, death, &how);
                }
                if lived < short && !told {
                    self.back_off(slot);
                } else {
                    self.slots[slot].starts.reset();
                    self.slots[slot].not_before = self.now;
                }
            }
            State::Leaving => {
                // One that has failed to start has said why.
                if death.is_clean() || worker.killed || !worker.has_served {
                    self.info(id, format!("ended {how}"));
                } else {
                    self.dead(id, death, &how);
                }
            }
        }
    }

    /// Logs a death that nobody wanted, with the requests that it cost.
    fn dead(&mut self, id: WorkerId, death: &Death, how: &str) {
        let text = format!("a worker died {how}");
        self.log(Level::Error, Some(messages::WORKER_DIED), Some(id), text);
        for request in &death.running {
            let text = format!(
                "it was serving, for {}: {}",
                Seconds(self.now.saturating_sub(request.since_ms)),
                String::from_utf8_lossy(&request.text)
            );
            self.log(Level::Error, Some(messages::REQUEST_LOST), Some(id), text);
        }
    }
}
