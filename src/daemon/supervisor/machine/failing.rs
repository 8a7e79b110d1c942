//! Workers that do not start, and workers that die.

use super::{Death, Machine, Role, State, WorkerId};
use crate::daemon::control::{Reason, Script};
use crate::exchange::Level;
use crate::messages::{self, Code};

/// A worker that dies within this time of its start is not started again at once.
const SHORT_LIFE_MS: u64 = 1_000;

/// The same for a service script, which may have ended on purpose.
const SHORT_SERVICE_MS: u64 = 10_000;

impl Machine {
    pub(super) fn failed(&mut self, id: WorkerId, script: Option<Script>, text: &str) {
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
        worker.state = State::Leaving;
        self.kill_after(id, self.exit_ms());
        if role == Role::Template {
            self.template_failed(id, script, messages::TEMPLATE_FAILED, text);
        } else {
            self.slots[slot].next = None;
            self.start_failed(id, slot, script, messages::WORKER_FAILED, text);
        }
    }

    pub(super) fn not_spawned(&mut self, id: WorkerId, why: &str) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        let slot = worker.slot;
        match worker.role {
            Role::Template => self.template_failed(id, None, messages::WORKER_NOT_SPAWNED, why),
            Role::Service => {
                self.slots[slot].current = None;
                self.complain(messages::WORKER_NOT_SPAWNED, id, None, why.to_owned());
                self.back_off(slot);
            }
            Role::Worker => {
                self.slots[slot].next = None;
                let reason = worker.replaces;
                self.start_failed_for(id, slot, reason, None, messages::WORKER_NOT_SPAWNED, why);
            }
        }
    }

    fn start_failed(
        &mut self,
        id: WorkerId,
        slot: usize,
        script: Option<Script>,
        code: Code,
        text: &str,
    ) {
        let reason = self.workers.get(&id).and_then(|worker| worker.replaces);
        self.start_failed_for(id, slot, reason, script, code, text);
    }

    fn start_failed_for(
        &mut self,
        id: WorkerId,
        slot: usize,
        reason: Option<Reason>,
        script: Option<Script>,
        code: Code,
        text: &str,
    ) {
        if let (Some(current), Some(reason)) = (self.slots[slot].current, reason) {
            self.replacement_failed(id, slot, current, reason, text);
            return;
        }
        self.complain(code, id, None, text.to_owned());
        match script {
            Some(script) if !self.slots[slot].skip.contains(&script) => {
                self.slots[slot].scripts.retain(|other| *other != script);
                self.slots[slot].skip.push(script);
            }
            _ => self.back_off(slot),
        }
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
                self.start_failed_for(id, slot, worker.replaces, None, code, &text);
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
                super::limits::Seconds(self.now.saturating_sub(request.since_ms)),
                String::from_utf8_lossy(&request.text)
            );
            self.log(Level::Error, Some(messages::REQUEST_LOST), Some(id), text);
        }
    }
}
