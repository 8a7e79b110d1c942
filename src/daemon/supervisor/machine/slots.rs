//! Slots: starting workers, swapping them, and what happens when a new one fails.

use std::collections::BTreeMap;

use super::timers::{Delay, Timer};
use super::{Action, Death, Machine, Role, State, Worker, WorkerId};
use crate::daemon::control::{Reason, Script, ToWorker};
use crate::exchange::Level;
use crate::messages::{self, Code};

/// A worker that dies within this time of its start is not started again at once.
const SHORT_LIFE_MS: u64 = 1_000;
/// The same for a service script, which may have ended on purpose.
const SHORT_SERVICE_MS: u64 = 10_000;

/// The place of one worker.
#[derive(Debug)]
pub(super) struct Slot {
    /// The worker that serves.
    pub(super) current: Option<WorkerId>,
    /// The worker that starts, or has started and is held back.
    pub(super) next: Option<WorkerId>,
    /// The current worker is to be replaced.
    pub(super) want: Option<Want>,
    /// No worker is started earlier.
    not_before: u64,
    /// What the last worker had loaded: its successor loads it before it is ready.
    pub(super) scripts: Vec<Script>,
    /// What did not load when there was no other worker to go on with: left to the first request,
    /// which is answered with an error instead of waiting for ever.
    skip: Vec<Script>,
    starts: Delay,
    retries: Delay,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            current: None,
            next: None,
            want: None,
            not_before: 0,
            scripts: Vec::new(),
            skip: Vec::new(),
            starts: Delay::new(100, 10_000),
            retries: Delay::new(1_000, 30_000),
        }
    }
}

/// Why a slot's worker is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) reason: Reason,
    /// Only a worker with at least this number will do: older ones have older code.
    since: WorkerId,
    /// At once; otherwise slot by slot.
    urgent: bool,
}

/// Changed scripts.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// The slot that is to be replaced first: a request waits there.
    first: Option<usize>,
    /// Changes that are being taken over.
    stale: BTreeMap<Script, Stale>,
    /// Changes that did not load.
    tried: BTreeMap<Script, Tried>,
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
    pub(super) fn begin(&mut self) {
        let at = self.now + u64::from(self.config.start_delay_ms);
        for slot in 0..self.slots.len() {
            self.not_before(slot, at);
        }
    }

    pub(super) fn not_before(&mut self, slot: usize, at: u64) {
        self.slots[slot].not_before = at;
        if at > self.now {
            self.timers.add(at, Timer::Start(slot));
        }
    }

    /// Starts and swaps what can be started and swapped now.
    pub(super) fn advance(&mut self) {
        if self.ending.is_some() {
            self.end_if_empty();
            return;
        }
        self.keep_template();
        for slot in 0..self.slots.len() {
            self.try_swap(slot);
            let state = &self.slots[slot];
            let wanted = state.current.is_none() || state.want.is_some_and(|want| want.urgent);
            if wanted {
                self.try_start(slot);
            }
        }
        self.advance_planned();
    }

    /// Planned replacements: one slot at a time.
    fn advance_planned(&mut self) {
        let planned = |slot: &Slot| slot.current.is_some() && slot.want.is_some_and(|w| !w.urgent);
        if self
            .slots
            .iter()
            .any(|slot| planned(slot) && slot.next.is_some())
        {
            return;
        }
        let due = |slot: &usize| {
            let slot = &self.slots[*slot];
            planned(slot) && slot.not_before <= self.now
        };
        let first = self.reload.first.filter(due);
        if let Some(slot) = first.or_else(|| (0..self.slots.len()).find(due)) {
            self.try_start(slot);
        }
    }

    fn try_start(&mut self, slot: usize) {
        let state = &self.slots[slot];
        let services = self.config.threads == 0;
        if state.next.is_some()
            || state.not_before > self.now
            || (services && state.current.is_some())
        {
            return;
        }
        let template = if self.config.preload && !services {
            let since = state.want.map_or(0, |want| want.since);
            match self.template(since) {
                Some(template) => Some(template),
                None => return,
            }
        } else {
            None
        };
        let imports = self.imports(slot);
        let state = &self.slots[slot];
        let replaces = state.current.and(state.want).map(|want| want.reason);
        let (role, beginning) = if services {
            (Role::Service, State::Serving)
        } else {
            (Role::Worker, State::Starting)
        };
        let id = self.add(role, slot, beginning, replaces, imports.clone());
        if services {
            self.slots[slot].current = Some(id);
        } else {
            self.slots[slot].next = Some(id);
            self.watch_start(id, template.is_some());
        }
        self.actions.push(match template {
            Some(template) => Action::Fork {
                template,
                worker: id,
                slot,
            },
            None => Action::Spawn {
                worker: id,
                slot,
                role,
                imports,
            },
        });
    }

    pub(super) fn add(
        &mut self,
        role: Role,
        slot: usize,
        state: State,
        replaces: Option<Reason>,
        scripts: Vec<Script>,
    ) -> WorkerId {
        let id = self.next_id;
        self.next_id += 1;
        let worker = Worker {
            role,
            slot,
            pid: None,
            state,
            serving_since: self.now,
            has_served: state == State::Serving,
            replaces,
            paused: false,
            at_limit: false,
            scripts,
            overdue: Vec::new(),
            over_rss: 0,
            told: false,
            kill_at: None,
            killed: false,
        };
        self.workers.insert(id, worker);
        id
    }

    /// What a new worker of a slot loads before it is ready.
    fn imports(&self, slot: usize) -> Vec<Script> {
        let slot = &self.slots[slot];
        let mut scripts = self.config.imports.clone();
        // Its memory is to be given back, so it does not load again what was asked for once.
        let idle = slot
            .want
            .is_some_and(|want| want.reason == Reason::InactivityTimeout);
        let loaded = if idle { &[] } else { &slot.scripts[..] };
        for script in loaded {
            if !scripts.contains(script) {
                scripts.push(script.clone());
            }
        }
        scripts.retain(|script| !slot.skip.contains(script));
        scripts
    }

    pub(super) fn ready(&mut self, id: WorkerId, pid: u32) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.pid.get_or_insert(pid);
        if worker.state != State::Starting {
            return;
        }
        worker.state = State::Ready;
        if worker.role == Role::Template {
            self.template_ready(id);
        } else {
            let slot = worker.slot;
            self.try_swap(slot);
        }
    }

    /// Lets the next worker take over, if it is time.
    fn try_swap(&mut self, slot: usize) {
        let state = &self.slots[slot];
        let Some(next) = state.next else { return };
        if self.workers[&next].state != State::Ready {
            return;
        }
        let old = state.current;
        let want = state.want;
        let waits_for_limit = want.is_some_and(|want| want.reason == Reason::MaximumRequests);
        if let Some(old) = old {
            if waits_for_limit && !self.workers[&old].at_limit {
                return;
            }
        }

        let now = self.now;
        let worker = self.workers.get_mut(&next).expect("looked up above");
        worker.state = State::Serving;
        worker.serving_since = now;
        worker.has_served = true;
        let replaces = worker.replaces;
        let scripts = worker.scripts.clone();
        let state = &mut self.slots[slot];
        state.scripts = scripts;
        state.current = Some(next);
        state.next = None;
        state.not_before = now;
        state.retries.reset();
        if want.is_some_and(|want| next >= want.since) {
            state.want = None;
        }
        if self.complaint_about == replaces {
            self.complaint.clear();
        }
        self.send(next, ToWorker::Go);
        if let Some(old) = old {
            let reason = replaces
                .or(want.map(|want| want.reason))
                .unwrap_or(Reason::GracefulSignal);
            let text = match self.workers[&old].pid {
                Some(pid) => format!("takes over from process {pid} ({})", reason.name()),
                None => format!("takes over ({})", reason.name()),
            };
            self.info(next, text);
            self.drain(old, reason);
        } else {
            self.info(next, "ready".to_owned());
        }
        if self.config.restart_interval > 0 {
            let at = now + u64::from(self.config.restart_interval) * 1000;
            self.timers.add(at, Timer::Interval(next));
        }
        self.finish_reload();
    }

    /// Forgets the changed scripts when all slots have them.
    fn finish_reload(&mut self) {
        let pending = self.slots.iter().any(|slot| {
            slot.want
                .is_some_and(|want| want.reason == Reason::ScriptReload)
        });
        if !pending {
            for script in core::mem::take(&mut self.reload.stale).keys() {
                self.reload.tried.remove(script);
            }
            self.reload.first = None;
        }
    }

    fn want(&mut self, slot: usize, reason: Reason, urgent: bool) {
        // New code needs a worker that is started from now on; otherwise any other one will do.
        let since = match reason {
            Reason::ScriptReload | Reason::GracefulSignal | Reason::EvictionSignal => self.next_id,
            _ => 0,
        };
        let state = &mut self.slots[slot];
        match &mut state.want {
            Some(want) => {
                want.urgent |= urgent;
                if since > 0 || want.reason == Reason::MaximumRequests {
                    want.since = want.since.max(since);
                    want.reason = reason;
                }
            }
            None => {
                state.want = Some(Want {
                    reason,
                    since,
                    urgent,
                })
            }
        }
    }

    /// The worker is to be replaced at once, unless that is under way.
    pub(super) fn replace(&mut self, id: WorkerId, reason: Reason) -> bool {
        self.plan(id, reason, true)
    }

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
        self.want(slot, reason, urgent);
        true
    }

    pub(super) fn loaded(&mut self, id: WorkerId, script: Script) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !worker.scripts.contains(&script) {
            worker.scripts.push(script.clone());
        }
        let slot = &mut self.slots[worker.slot];
        if slot.current == Some(id) {
            slot.skip.retain(|skipped| *skipped != script);
            if !slot.scripts.contains(&script) {
                slot.scripts.push(script);
            }
        }
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
        if self.slots[slot].want.is_none() {
            self.want(slot, reason, true);
        }
        // No replacement will be tried soon: the worker has to go on.
        if self.slots[slot].next.is_none() && self.slots[slot].not_before > self.now {
            self.resume(id);
        }
    }

    fn resume(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            if core::mem::take(&mut worker.paused) {
                self.send(id, ToWorker::Go);
            }
        }
    }

    pub(super) fn stale(&mut self, id: WorkerId, script: Script, mtime_us: i64) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let slot = worker.slot;
        if worker.state != State::Serving || self.slots[slot].current != Some(id) {
            return;
        }
        if !worker.scripts.contains(&script) {
            worker.scripts.push(script.clone());
        }
        if let Some(tried) = self.reload.tried.get(&script) {
            if tried.mtime_us == mtime_us && tried.not_before > self.now {
                let retry_ms = (tried.not_before - self.now) as u32;
                let message = ToWorker::StaysOld {
                    script,
                    mtime_us,
                    retry_ms,
                };
                self.send(id, message);
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
            let has = newest.is_some_and(|id| self.workers[&id].scripts.contains(&script));
            if has || index == slot {
                self.want(index, Reason::ScriptReload, false);
            }
        }
        self.reload.first = Some(slot);
        self.reload.stale.insert(script, Stale { mtime_us, since });
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
        }
    }

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

    fn back_off(&mut self, slot: usize) {
        let delay = self.slots[slot].starts.grow();
        self.not_before(slot, self.now + delay);
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
        let text = format!(
            "the replacement ({}) does not start, so the old worker goes on: {text}",
            reason.name()
        );
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
                let message = ToWorker::StaysOld {
                    script: script.clone(),
                    mtime_us: stale.mtime_us,
                    retry_ms: retry as u32,
                };
                self.send(id, message);
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
