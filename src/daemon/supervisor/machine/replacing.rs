//! Replacements: who is to be replaced and why, changed scripts, and what happens when the new one
//! fails.

use std::collections::BTreeMap;

use super::failing::with_reason;
use super::timers::Delay;
use super::{Machine, State, WorkerId};
use crate::daemon::control::{Reason, Script, ToWorker};
use crate::exchange::Level;
use crate::messages;

/// The same state of a script is not taken over again sooner: it may call for it in every request.
const AGAIN_MS: u64 = 1_000;

/// Why a slot's worker is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) reason: Reason,
    /// Only a worker with at least this number will do: older ones have older code.
    pub(super) since: WorkerId,
    /// At once; otherwise slot by slot.
    pub(super) urgent: bool,
}

/// Changed scripts.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// The slot that is to be replaced first: a request waits there.
    pub(super) first: Option<usize>,
    /// Changes that are being taken over.
    stale: BTreeMap<Script, Stale>,
    /// Changes that did not load.
    tried: BTreeMap<Script, Tried>,
    /// Changes that all workers have, and since when.
    done: BTreeMap<Script, (i64, u64)>,
}

#[derive(Debug)]
struct Stale {
    mtime_us: i64,
    since: WorkerId,
}

#[derive(Debug)]
struct Tried {
    mtime_us: i64,
    not_before: u64,
    delay: Delay,
}

impl Machine {
    /// Notes that a slot's worker is to be replaced. Returns whether that is new.
    pub(super) fn want(&mut self, slot: usize, reason: Reason, urgent: bool) -> bool {
        // New code needs a worker that is started from now on; otherwise any other one will do.
        let since = match reason {
            Reason::ScriptReload | Reason::GracefulSignal | Reason::EvictionSignal => self.next_id,
            _ => 0,
        };
        let state = &mut self.slots[slot];
        let before = state.want;
        let want = match before {
            Some(mut want) => {
                want.urgent |= urgent;
                if since > 0 || want.reason == Reason::MaximumRequests {
                    want.since = since;
                    want.reason = reason;
                }
                want
            }
            None => Want {
                reason,
                since,
                urgent,
            },
        };
        state.want = Some(want);
        let another = before.is_none_or(|before| before.reason != want.reason);
        if another && state.current.is_some() {
            // The failures of another kind of replacement say nothing about this one.
            state.retries.reset();
            state.not_before = self.now;
        }
        before != Some(want)
    }

    /// The worker is to be replaced at once, unless that is under way.
    pub(super) fn replace(&mut self, id: WorkerId, reason: Reason) -> bool {
        self.plan(id, reason, true)
    }

    /// The worker is to be replaced: at once if `urgent`, else when its turn comes. Returns whether
    /// that is new.
    pub(super) fn plan(&mut self, id: WorkerId, reason: Reason, urgent: bool) -> bool {
        let Some(worker) = self.workers.get(&id) else {
            return false;
        };
        let slot = worker.slot;
        if worker.state != State::Serving || self.slots[slot].current != Some(id) {
            return false;
        }
        let pending = self.slots[slot].want;
        if pending.is_some_and(|want| want.reason == reason && (want.urgent || !urgent)) {
            return false;
        }
        self.want(slot, reason, urgent)
    }

    pub(super) fn retire(&mut self, id: WorkerId, reason: Reason) {
        if reason == Reason::ShutdownSignal || reason == Reason::SupervisorGone {
            self.leaves_by_itself(id);
        } else if self.replace(id, reason) {
            self.info(id, format!("is to be replaced ({})", reason.name()));
        }
    }

    pub(super) fn paused(&mut self, id: WorkerId, reason: Reason) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let slot = worker.slot;
        if worker.state != State::Serving || self.slots[slot].current != Some(id) {
            return;
        }
        worker.paused = true;
        worker.at_limit = true;
        // Whatever it was to be replaced for, it cannot wait for its turn any longer.
        self.want(slot, reason, true);
        // No replacement will be tried soon: the worker has to go on.
        let state = &self.slots[slot];
        let later = state.not_before > self.now || self.no_template_soon();
        if state.next.is_none() && later {
            self.resume(id);
        }
    }

    pub(super) fn resume(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            if core::mem::take(&mut worker.paused) {
                self.send(id, ToWorker::Go);
            }
        }
    }

    pub(super) fn stale(&mut self, id: WorkerId, script: Script, mtime_us: i64) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        let slot = worker.slot;
        if worker.state != State::Serving || self.slots[slot].current != Some(id) {
            return;
        }
        self.loaded(id, script.clone());
        if let Some(tried) = self.reload.tried.get(&script) {
            if tried.mtime_us == mtime_us && tried.not_before > self.now {
                let retry_ms = tried.not_before - self.now;
                self.stays_old(id, script, mtime_us, retry_ms);
                return;
            }
        }
        if let Some((done, at)) = self.reload.done.get(&script) {
            let until = at + AGAIN_MS;
            if *done == mtime_us && until > self.now {
                self.stays_old(id, script, mtime_us, until - self.now);
                return;
            }
        }
        let known = self.reload.stale.get(&script);
        if known.is_some_and(|known| known.mtime_us == mtime_us && id < known.since) {
            // It is being replaced anyway; the requests that wait decide the order.
            self.reload.first = Some(slot);
            return;
        }
        let since = self.next_id;
        let path = String::from_utf8_lossy(&script.path);
        self.info(
            id,
            format!("{path} has changed: workers with the new code are started"),
        );
        for index in 0..self.slots.len() {
            let newest = self.slots[index].next.or(self.slots[index].current);
            let has = newest.is_some_and(|id| self.workers[&id].scripts.contains(&script))
                || self.slots[index].scripts.contains(&script);
            if has || index == slot {
                self.want(index, Reason::ScriptReload, false);
            }
        }
        self.reload.first = Some(slot);
        self.reload.stale.insert(script, Stale { mtime_us, since });
    }

    fn stays_old(&mut self, id: WorkerId, script: Script, mtime_us: i64, retry_ms: u64) {
        let message = ToWorker::StaysOld {
            script,
            mtime_us,
            retry_ms: u32::try_from(retry_ms).unwrap_or(u32::MAX),
        };
        self.send(id, message);
    }

    /// SIGUSR1: all workers are replaced, slot by slot.
    pub(super) fn replace_all(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let reason = if self.config.eviction_timeout > 0 {
            Reason::EvictionSignal
        } else {
            Reason::GracefulSignal
        };
        self.log(
            Level::Info,
            None,
            None,
            "SIGUSR1: all workers are replaced, one after the other".to_owned(),
        );
        for slot in 0..self.slots.len() {
            let state = &self.slots[slot];
            if self.config.threads == 0 {
                if let Some(id) = state.current {
                    self.end_service(id);
                }
            } else if state.current.is_some() || state.next.is_some() {
                self.want(slot, reason, false);
            }
            if self.slots[slot].current.is_none() {
                // Somebody has repaired something.
                self.slots[slot].starts.reset();
                self.slots[slot].not_before = self.now;
            }
        }
    }

    /// Forgets the changed scripts when all slots have them.
    pub(super) fn finish_reload(&mut self) {
        let pending = self.slots.iter().any(|slot| {
            slot.want
                .is_some_and(|want| want.reason == Reason::ScriptReload)
        });
        if !pending {
            for (script, stale) in core::mem::take(&mut self.reload.stale) {
                self.reload.tried.remove(&script);
                self.reload.done.insert(script, (stale.mtime_us, self.now));
            }
            self.reload.first = None;
        }
    }

    /// A replacement has failed: the current worker goes on.
    pub(super) fn replacement_failed(
        &mut self,
        id: WorkerId,
        slot: usize,
        current: WorkerId,
        reason: Reason,
        text: &str,
    ) {
        let what = format!(
            "the replacement ({}) does not start, so the old worker goes on",
            reason.name()
        );
        let text = with_reason(&what, text);
        self.complain(messages::REPLACEMENT_FAILED, id, Some(reason), text);
        match reason {
            Reason::ScriptReload => self.reload_failed(),
            Reason::GracefulSignal | Reason::EvictionSignal => {
                let urgent = self.slots[slot].want.is_some_and(|want| want.urgent);
                if urgent {
                    self.slots[slot].want = None;
                } else {
                    self.forget(reason);
                }
            }
            _ => {
                let delay = self.slots[slot].retries.grow();
                self.not_before(slot, self.now + delay);
            }
        }
        self.resume(current);
    }

    /// Gives up planned replacements.
    fn forget(&mut self, reason: Reason) {
        for slot in &mut self.slots {
            if slot
                .want
                .is_some_and(|want| want.reason == reason && !want.urgent)
            {
                slot.want = None;
            }
        }
    }

    /// The new code does not load.
    fn reload_failed(&mut self) {
        let now = self.now;
        for (script, stale) in core::mem::take(&mut self.reload.stale) {
            let fresh = || Tried {
                mtime_us: stale.mtime_us,
                not_before: 0,
                delay: Delay::new(1_000, 30_000),
            };
            let tried = self
                .reload
                .tried
                .entry(script.clone())
                .or_insert_with(fresh);
            if tried.mtime_us != stale.mtime_us {
                *tried = fresh();
            }
            let retry = tried.delay.grow();
            tried.not_before = now + retry;
            let with_it: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|(_, worker)| {
                    worker.state == State::Serving && worker.scripts.contains(&script)
                })
                .map(|(id, _)| *id)
                .collect();
            for id in with_it {
                self.stays_old(id, script.clone(), stale.mtime_us, retry);
            }
        }
        self.reload.first = None;
        for slot in &mut self.slots {
            if slot
                .want
                .is_some_and(|want| want.reason == Reason::ScriptReload)
            {
                slot.want = None;
            }
        }
    }
}
