//! Slots: starting workers and swapping them.

use super::replacing::Want;
use super::timers::{Delay, Timer};
use super::{Action, Load, Machine, Role, State, Worker, WorkerId};
use crate::daemon::control::{Application, Reason, Script, ToWorker};

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
    pub(super) not_before: u64,
    /// What the last worker had loaded: its successor loads it before it is ready.
    pub(super) scripts: Vec<Script>,
    /// The ASGI applications that it had started: likewise.
    pub(super) applications: Vec<Application>,
    pub(super) starts: Delay,
    pub(super) retries: Delay,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            current: None,
            next: None,
            want: None,
            not_before: 0,
            scripts: Vec::new(),
            applications: Vec::new(),
            starts: Delay::new(100, 10_000),
            retries: Delay::new(1_000, 30_000),
        }
    }
}

impl Machine {
    pub(super) fn begin(&mut self) {
        let at = self.now + u64::from(self.config.start_delay_ms);
        self.template_not_before(at);
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
        // Nobody who waits for a replacement may be forgotten when that is given up.
        let forgotten = |slot: &Slot| slot.want.is_none().then_some(slot.current)?;
        for id in self.slots.iter().filter_map(forgotten).collect::<Vec<_>>() {
            self.resume(id);
        }
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
        let load = self.load(slot);
        let state = &self.slots[slot];
        let replaces = state.current.and(state.want).map(|want| want.reason);
        let (role, beginning) = if services {
            (Role::Service, State::Serving)
        } else {
            (Role::Worker, State::Starting)
        };
        let id = self.add(role, slot, beginning, replaces);
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
                load,
            },
        });
    }

    pub(super) fn add(
        &mut self,
        role: Role,
        slot: usize,
        state: State,
        replaces: Option<Reason>,
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
            scripts: Vec::new(),
            applications: Vec::new(),
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
    fn load(&self, slot: usize) -> Load {
        let slot = &self.slots[slot];
        // Its memory is to be given back, so it does not load again what was asked for once.
        let idle = slot
            .want
            .is_some_and(|want| want.reason == Reason::InactivityTimeout);
        let loaded = if idle { &[] } else { &slot.scripts[..] };
        let applications = if idle { &[] } else { &slot.applications[..] };
        Load {
            applications: applications.to_vec(),
            ..Load::new(&self.config.imports, loaded, slot.current.is_some())
        }
    }

    pub(super) fn ready(&mut self, id: WorkerId, pid: u32) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.pid.get_or_insert(pid);
        if worker.role == Role::Service && worker.state == State::Serving {
            self.send(id, ToWorker::Go);
            return;
        }
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
        let applications = worker.applications.clone();
        let state = &mut self.slots[slot];
        state.scripts = scripts;
        state.applications = applications;
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

    pub(super) fn loaded(&mut self, id: WorkerId, script: Script) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !worker.scripts.contains(&script) {
            worker.scripts.push(script.clone());
        }
        let slot = &mut self.slots[worker.slot];
        if slot.current == Some(id) && !slot.scripts.contains(&script) {
            slot.scripts.push(script);
        }
    }

    /// A worker has started an application, which takes the place of another of the same script and
    /// name.
    pub(super) fn started(&mut self, id: WorkerId, application: Application) {
        fn note(applications: &mut Vec<Application>, new: &Application) {
            applications.retain(|old| old.script != new.script || old.callable != new.callable);
            applications.push(new.clone());
        }
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        note(&mut worker.applications, &application);
        let slot = &mut self.slots[worker.slot];
        if slot.current == Some(id) {
            note(&mut slot.applications, &application);
        }
    }

    pub(super) fn back_off(&mut self, slot: usize) {
        let delay = self.slots[slot].starts.grow();
        self.not_before(slot, self.now + delay);
    }
}
