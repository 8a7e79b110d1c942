//! `preload=on`: a template imports everything once, and workers are forked from it.

use super::timers::{Delay, Timer};
use super::{Action, Load, Machine, Role, State, Worker, WorkerId};
use crate::daemon::control::{Reason, Script};
use crate::exchange::Level;
use crate::messages::{self, Code};

/// A template that ends within this time is not started again at once.
const SHORT_LIFE_MS: u64 = 10_000;

/// The template of the group.
#[derive(Debug)]
pub(super) struct Preload {
    /// The one that forks.
    ready: Option<WorkerId>,
    /// The one that imports.
    starting: Option<WorkerId>,
    not_before: u64,
    delay: Delay,
}

impl Default for Preload {
    fn default() -> Self {
        Preload {
            ready: None,
            starting: None,
            not_before: 0,
            delay: Delay::new(100, 10_000),
        }
    }
}

impl Machine {
    /// One that died is started again before somebody needs it.
    pub(super) fn keep_template(&mut self) {
        if self.config.preload && self.config.threads > 0 && self.preload.ready.is_none() {
            self.template(0);
        }
    }

    /// A template that is at least as new as `since`; if there is none, it is started.
    pub(super) fn template(&mut self, since: WorkerId) -> Option<WorkerId> {
        if let Some(ready) = self.preload.ready.filter(|ready| *ready >= since) {
            return Some(ready);
        }
        if self.preload.starting.is_none() && self.preload.not_before <= self.now {
            let mut loaded: Vec<Script> = Vec::new();
            for script in self.slots.iter().flat_map(|slot| &slot.scripts) {
                if !loaded.contains(script) {
                    loaded.push(script.clone());
                }
            }
            // Where a slot is empty, a template without one script is better than none.
            let goes_on = self.slots.iter().all(|slot| slot.current.is_some());
            let load = Load::new(&self.config.imports, &loaded, goes_on);
            let id = self.add(Role::Template, 0, State::Starting, None);
            self.preload.starting = Some(id);
            self.watch_start(id, false);
            self.actions.push(Action::Spawn {
                worker: id,
                slot: 0,
                role: Role::Template,
                load,
            });
        }
        None
    }

    pub(super) fn template_ready(&mut self, id: WorkerId) {
        self.preload.starting = None;
        if let Some(template) = self.workers.get_mut(&id) {
            template.serving_since = self.now;
        }
        self.info(id, "the template has imported everything".to_owned());
        if let Some(old) = self.preload.ready.replace(id) {
            self.drain(old, Reason::ScriptReload);
        }
    }

    pub(super) fn template_failed(&mut self, id: WorkerId, code: Code, text: &str) {
        self.preload.starting = None;
        // One that waits for new code, if there is such a one.
        let waiting = (0..self.slots.len())
            .filter_map(|slot| {
                let state = &self.slots[slot];
                Some((slot, state.current?, state.want?))
            })
            .max_by_key(|(_, _, want)| want.since);
        match waiting {
            Some((slot, current, want)) => {
                self.replacement_failed(id, slot, current, want.reason, text);
            }
            None => self.start_complaint(id, code, text),
        }
        self.template_later();
        for current in self
            .slots
            .iter()
            .filter_map(|slot| slot.current)
            .collect::<Vec<_>>()
        {
            self.resume(current);
        }
    }

    fn template_later(&mut self) {
        let delay = self.preload.delay.grow();
        self.template_not_before(self.now + delay);
    }

    pub(super) fn template_not_before(&mut self, at: u64) {
        self.preload.not_before = at;
        if at > self.now {
            self.timers.add(at, Timer::Template);
        }
    }

    /// A worker that could only be forked will not be started now.
    pub(super) fn no_template_soon(&self) -> bool {
        self.config.preload && self.preload.ready.is_none() && self.preload.not_before > self.now
    }

    /// It cannot be told to fork any more. `since`: when it became ready.
    pub(super) fn template_lost(&mut self, id: WorkerId, since: u64) {
        if self.preload.ready == Some(id) {
            self.preload.ready = None;
            if self.now - since >= SHORT_LIFE_MS {
                self.preload.delay.reset();
            }
            self.template_later();
        }
    }

    pub(super) fn template_died(&mut self, id: WorkerId, template: &Worker, how: &str) {
        match template.state {
            State::Starting => {
                let text = format!("it ended before it was ready, {how}");
                self.template_failed(id, messages::TEMPLATE_FAILED, &text);
            }
            State::Ready | State::Serving => {
                self.template_lost(id, template.serving_since);
                let text = format!("the template died {how}; it is started again");
                self.log(Level::Error, Some(messages::TEMPLATE_DIED), Some(id), text);
            }
            State::Leaving => self.info(id, format!("the template ended {how}")),
        }
    }
}
