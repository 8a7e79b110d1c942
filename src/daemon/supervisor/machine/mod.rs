//! What the supervisor decides: a state machine without processes, descriptors or a clock.
//!
//! The event loop reports [`Event`]s with the time, and carries out the [`Action`]s that come
//! back. Times are milliseconds of `CLOCK_MONOTONIC`.
//!
//! A *slot* is the place of one worker, with a listening socket. Its `current` worker serves; its
//! `next` one is being started, as the first one or to replace the current one. A worker that was
//! replaced leaves: it is told to drain, and killed at its deadline.
//!
//! * `slots`: starting and swapping.
//! * `replacing`: who is to be replaced and why; changed scripts.
//! * `failing`: workers that do not start, and workers that die.
//! * `limits`: what the boards show: hung requests, a held GIL, idleness, memory.
//! * `leaving`: draining, deadlines, the end of the group.
//! * `preload`: the template that workers are forked from.
//! * `death`: what a death is called.

#![forbid(unsafe_code)]

mod death;
mod failing;
mod leaving;
mod limits;
mod preload;
mod replacing;
mod slots;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::BTreeMap;

use crate::daemon::board::Running;
use crate::daemon::control::{Application, FromWorker, Reason, Script, ToWorker};
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages::Code;

pub use death::{Death, Ended};
pub use limits::{SAMPLE_MS, Seconds, needs_samples};
use preload::Preload;
use slots::Slot;
use timers::{Timer, Timers};

/// Numbers processes in the order in which they were started: a worker with a higher number has
/// newer code.
pub type WorkerId = u32;

/// What kind of process is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves requests.
    Worker,
    /// Imports scripts and serves none (`threads=0`).
    Service,
    /// Imports scripts and forks workers (`preload=on`).
    Template,
}

/// What a process loads before it is ready, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// What does not load is logged and left to the first request.
    pub imports: Vec<Script>,
    /// What does not load makes the process fail: another one goes on with the old code.
    pub required: Vec<Script>,
    /// ASGI applications that are started.
    pub applications: Vec<Application>,
}

impl Load {
    /// `configured` scripts, and those that a predecessor has `loaded`. These are required only if
    /// it `goes_on` should they fail.
    fn new(configured: &[Script], loaded: &[Script], goes_on: bool) -> Load {
        let without = |scripts: &[Script], others: &[Script]| -> Vec<Script> {
            let is_new = |script: &&Script| !others.contains(script);
            scripts.iter().filter(is_new).cloned().collect()
        };
        if goes_on {
            Load {
                imports: without(configured, loaded),
                required: loaded.to_vec(),
                applications: Vec::new(),
            }
        } else {
            Load {
                imports: [configured, &without(loaded, configured)].concat(),
                required: Vec::new(),
                applications: Vec::new(),
            }
        }
    }
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// The supervisor has started.
    Begin,
    /// A process runs.
    Spawned {
        /// The one that was to be started.
        worker: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// A process could not be made.
    NotSpawned {
        /// The one that was to be started.
        worker: WorkerId,
        /// Why, for the log.
        why: String,
    },
    /// A process has sent a message.
    Said {
        /// Which.
        worker: WorkerId,
        /// What.
        message: FromWorker,
    },
    /// A process has closed its control channel.
    Silent {
        /// Which.
        worker: WorkerId,
    },
    /// A process has ended. Nothing more comes from it.
    Died {
        /// Which.
        worker: WorkerId,
        /// How.
        death: Death,
    },
    /// What a worker's board shows now.
    Sampled {
        /// Which.
        worker: WorkerId,
        /// What.
        sample: Sample,
    },
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGUSR1.
    Replace,
    /// No client is left.
    ClientsGone,
    /// Time has passed.
    Time,
}

/// What a board shows, and the size of its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests that have been started.
    pub started: u64,
    /// Scripts that have been loaded.
    pub loaded: u32,
    /// When the GIL was last had; 0: never.
    pub pulse_ms: u64,
    /// When something last happened; 0: never.
    pub activity_ms: u64,
    /// When the first request began; 0: none has.
    pub first_request_ms: u64,
    /// The requests that run.
    pub running: Vec<Running>,
    /// Resident bytes, if they were to be looked at.
    pub rss: Option<u64>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// The slot that it serves; 0 for a template.
        slot: usize,
        /// What it is.
        role: Role,
        /// What it shall load before it is ready, and not without.
        load: Load,
    },
    /// Tell a template to fork a worker.
    Fork {
        /// The template.
        template: WorkerId,
        /// The new worker's number.
        worker: WorkerId,
        /// The slot that it serves.
        slot: usize,
    },
    /// Send a message to a process.
    Send {
        /// To which.
        worker: WorkerId,
        /// What.
        message: ToWorker,
    },
    /// Send a signal to a process.
    Kill {
        /// To which.
        worker: WorkerId,
        /// The signal's number.
        signal: i32,
    },
    /// Log the requests that a worker serves.
    LogRunning {
        /// Which worker.
        worker: WorkerId,
    },
    /// Write to the log, line by line.
    Log {
        /// The level.
        level: Level,
        /// Put before the first line.
        code: Option<Code>,
        /// The process that it is about, else the supervisor.
        worker: Option<WorkerId>,
        /// The text.
        text: String,
    },
    /// Look at the boards now.
    Look,
    /// End the supervisor: no process is left.
    End,
}

/// What a process is doing, as far as the supervisor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It starts.
    Starting,
    /// It could serve, and waits for [`ToWorker::Go`]. A template that can fork.
    Ready,
    /// It serves. A service script that runs.
    Serving,
    /// It has been told to end, or ends by itself.
    Leaving,
}

#[derive(Debug)]
struct Worker {
    role: Role,
    slot: usize,
    pid: Option<u32>,
    state: State,
    /// When it began to serve.
    serving_since: u64,
    /// It has served, or was told to.
    has_served: bool,
    /// Why it replaces another one.
    replaces: Option<Reason>,
    /// It takes no requests until it is told to.
    paused: bool,
    /// It has reached `maximum-requests`: its successor need not be held back.
    at_limit: bool,
    /// What it has said that it has loaded, in order.
    scripts: Vec<Script>,
    /// The ASGI applications that it has started.
    applications: Vec<Application>,
    /// Its requests that have run for too long.
    overdue: Vec<limits::Overdue>,
    /// How many samples in a row were over `max-rss`.
    over_rss: u32,
    /// It is a service script that was told to end.
    told: bool,
    /// When it is killed.
    kill_at: Option<u64>,
    /// We have sent SIGKILL.
    killed: bool,
}

/// The group.
pub struct Machine {
    config: GroupConfig,
    slots: Vec<Slot>,
    workers: BTreeMap<WorkerId, Worker>,
    next_id: WorkerId,
    timers: Timers,
    preload: Preload,
    reload: replacing::Reload,
    ending: Option<leaving::Ending>,
    /// The last failure's text, which is not logged again while it stays the same.
    complaint: String,
    /// The kind of replacement that it was about; `None`: a start.
    complaint_about: Option<Reason>,
    now: u64,
    actions: Vec<Action>,
}

impl Machine {
    /// A group that has not begun.
    pub fn new(config: GroupConfig) -> Machine {
        Machine {
            slots: (0..config.processes).map(|_| Slot::default()).collect(),
            config,
            workers: BTreeMap::new(),
            next_id: 1,
            timers: Timers::default(),
            preload: Preload::default(),
            reload: replacing::Reload::default(),
            ending: None,
            complaint: String::new(),
            complaint_about: None,
            now: 0,
            actions: Vec::new(),
        }
    }

    /// When [`Event::Time`] is to be reported at the latest.
    pub fn deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Handles one event, and returns what is to be done, in order.
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Begin => self.begin(),
            Event::Spawned { worker, pid } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.pid = Some(pid);
                }
            }
            Event::NotSpawned { worker, why } => self.not_spawned(worker, &why),
            Event::Said { worker, message } => self.said(worker, message),
            Event::Silent { worker } => self.silent(worker),
            Event::Died { worker, death } => self.died(worker, &death),
            Event::Sampled { worker, sample } => self.sampled(worker, &sample),
            Event::Terminate => self.terminate(),
            Event::Replace => self.replace_all(),
            Event::ClientsGone => self.clients_gone(),
            Event::Time => {}
        }
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Start(_) | Timer::Template => {}
                Timer::Look => self.actions.push(Action::Look),
                Timer::Kill(worker) => self.kill_due(worker),
                Timer::Startup(worker) => self.startup_due(worker),
                Timer::Interval(worker) => self.interval_due(worker),
            }
        }
        self.advance();
        core::mem::take(&mut self.actions)
    }

    fn said(&mut self, id: WorkerId, message: FromWorker) {
        match message {
            FromWorker::Ready { pid } => self.ready(id, pid),
            FromWorker::Failed { text, .. } => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.failed(id, &text);
            }
            FromWorker::Loaded { script } => self.loaded(id, script),
            FromWorker::Started { application } => self.started(id, application),
            FromWorker::Stale { script, mtime_us } => self.stale(id, script, mtime_us),
            FromWorker::Retire { reason } => self.retire(id, reason),
            FromWorker::Paused { reason } => self.paused(id, reason),
            FromWorker::Drained => self.drained(id),
            // Logged by the event loop, nothing to decide.
            FromWorker::Log { .. } => {}
        }
    }

    fn log(&mut self, level: Level, code: Option<Code>, worker: Option<WorkerId>, text: String) {
        self.actions.push(Action::Log {
            level,
            code,
            worker,
            text,
        });
    }

    fn info(&mut self, worker: WorkerId, text: String) {
        self.log(Level::Info, None, Some(worker), text);
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        self.actions.push(Action::Send { worker, message });
    }

    /// Logs a failure once, as long as the text stays the same.
    fn complain(&mut self, code: Code, worker: WorkerId, about: Option<Reason>, text: String) {
        if self.complaint != text || self.complaint_about != about {
            self.complaint.clone_from(&text);
            self.complaint_about = about;
            self.log(Level::Error, Some(code), Some(worker), text);
        }
    }
}
