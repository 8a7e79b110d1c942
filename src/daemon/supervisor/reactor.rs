//! The event loop: signals, channels, pipes and timers in, actions out.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use super::log::Log;
use super::machine::{
    Action, Death, Ended, Event, Machine, Role, SAMPLE_MS, Sample, Seconds, WorkerId, needs_samples,
};
use super::memory::{self, OutOfMemory};
use super::output::Output;
use super::process;
use super::sockets::Sockets;
use super::sys::{self, Epoll, Got, Reaped, Signals};
use crate::daemon::board::{self, Board, Running};
use crate::daemon::control::{self, FromWorker};
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages;

const HANDLED: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD];
const IGNORED: [i32; 4] = [libc::SIGHUP, libc::SIGUSR2, libc::SIGWINCH, libc::SIGPIPE];

/// What can be read, as a token of the `epoll` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Lifeline,
    Control(WorkerId),
    Output(WorkerId),
}

impl Source {
    fn token(self) -> u64 {
        let (kind, id) = match self {
            Source::Signals => (0, 0),
            Source::Lifeline => (1, 0),
            Source::Control(id) => (2, id),
            Source::Output(id) => (3, id),
        };
        kind << 32 | u64::from(id)
    }

    fn of(token: u64) -> Source {
        let id = token as u32;
        match token >> 32 {
            0 => Source::Signals,
            1 => Source::Lifeline,
            2 => Source::Control(id),
            _ => Source::Output(id),
        }
    }
}

/// A process as the event loop sees it.
struct Process {
    pid: Option<u32>,
    role: Role,
    control: Option<OwnedFd>,
    board: Option<Board>,
}

/// The supervisor.
pub struct Reactor {
    config: GroupConfig,
    log: Log,
    machine: Machine,
    epoll: Epoll,
    signals: Signals,
    lifeline: Option<OwnedFd>,
    sockets: Sockets,
    null: OwnedFd,
    processes: BTreeMap<WorkerId, Process>,
    /// Pipes outlive their process while a child of it has them.
    outputs: BTreeMap<WorkerId, (Output, u32)>,
    events: VecDeque<Event>,
    out_of_memory: OutOfMemory,
    next_sample: Option<u64>,
    said_no_rss: bool,
    env_complaints: Vec<String>,
    ended: bool,
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("the supervisor cannot work: {what}: {error}")
}

impl Reactor {
    /// Takes over the descriptors of `config` and prepares everything.
    ///
    /// # Errors
    /// A message for the log.
    pub fn new(config: GroupConfig) -> Result<Reactor, String> {
        // Executed by descriptor, a program is named after the descriptor's number.
        sys::name_thread(c"rwsgi-daemon");
        if !config.core_dumps {
            sys::forbid_dumping();
        }
        if config.preload {
            sys::become_subreaper().map_err(failed("prctl"))?;
        }
        if let Some(home) = config.home.as_ref().filter(|_| !config.sockets.is_empty()) {
            // httpd has done that already, as another user perhaps.
            std::env::set_current_dir(std::ffi::OsStr::from_bytes(home)).map_err(failed("home"))?;
        }
        for signal in IGNORED {
            sys::ignore(signal);
        }
        // If whoever started us ignores it, the kernel would reap our children.
        sys::restore(libc::SIGCHLD);
        sys::raise_open_files();
        let signals = Signals::new(&HANDLED).map_err(failed("signalfd"))?;
        let epoll = Epoll::new().map_err(failed("epoll"))?;
        epoll
            .add(&signals, Source::Signals.token())
            .map_err(failed("epoll"))?;
        let lifeline = match config.lifeline_fd {
            Some(fd) => {
                let fd = sys::inherit(fd as RawFd).map_err(failed("lifeline"))?;
                epoll
                    .add(&fd, Source::Lifeline.token())
                    .map_err(failed("lifeline"))?;
                Some(fd)
            }
            None => None,
        };
        let sockets = Sockets::open(&config)?;
        let null = match std::fs::File::open("/dev/null") {
            Ok(file) => file.into(),
            // In a chroot there may be none; httpd has given us one.
            Err(_) => sys::duplicate(0).map_err(failed("/dev/null"))?,
        };
        Ok(Reactor {
            log: Log::new(config.log_level, &config.name),
            machine: Machine::new(config.clone()),
            epoll,
            signals,
            lifeline,
            sockets,
            null,
            processes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            events: VecDeque::new(),
            out_of_memory: OutOfMemory::new(),
            next_sample: needs_samples(&config).then(board::now_ms),
            said_no_rss: false,
            env_complaints: Vec::new(),
            ended: false,
            config,
        })
    }

    /// Runs until the group has ended.
    ///
    /// # Errors
    /// A message for the log.
    pub fn run(mut self) -> Result<(), String> {
        self.say(Level::Info, "starts");
        self.report(Event::Begin);
        while !self.ended {
            let now = board::now_ms();
            let next = [self.machine.deadline(), self.next_sample]
                .into_iter()
                .flatten()
                .min();
            let timeout = match next {
                Some(at) => i32::try_from(at.saturating_sub(now)).unwrap_or(i32::MAX),
                None => -1,
            };
            for token in self.epoll.wait(timeout).map_err(failed("epoll"))? {
                self.readable(Source::of(token));
            }
            let now = board::now_ms();
            if self.next_sample.is_some_and(|at| at <= now) {
                self.sample();
                self.next_sample = Some(now + SAMPLE_MS);
            }
            if self.machine.deadline().is_some_and(|at| at <= now) {
                self.report(Event::Time);
            }
        }
        self.say(Level::Info, "has ended");
        Ok(())
    }

    fn say(&self, level: Level, text: &str) {
        self.log.text(level, sys::getpid(), None, text);
    }

    /// Lets the machine decide, and does what it says, until nothing more follows from it.
    fn report(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            for action in self.machine.handle(board::now_ms(), event) {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn {
                worker,
                slot,
                role,
                load,
            } => {
                let listener = match role {
                    Role::Worker => self.sockets.of_slot(slot),
                    _ => None,
                };
                let null = self.null.as_raw_fd();
                let started = process::start(&self.config, role, load, listener, null)
                    .and_then(|started| self.adopt(worker, role, started));
                self.events.push_back(match started {
                    Ok(pid) => Event::Spawned { worker, pid },
                    Err(why) => Event::NotSpawned { worker, why },
                });
            }
            Action::Fork {
                template,
                worker,
                slot,
            } => {
                let forked = self.fork(template, worker, slot);
                if let Err(why) = forked {
                    self.events.push_back(Event::NotSpawned { worker, why });
                }
            }
            Action::Send { worker, message } => {
                let process = self.processes.get(&worker);
                if let Some(control) = process.and_then(|process| process.control.as_ref()) {
                    // A process that cannot be told anything ends, and that is noticed.
                    let _ = sys::send(control, &message.encode(), &[]);
                }
            }
            Action::Kill { worker, signal } => self.kill(worker, signal),
            Action::LogRunning { worker } => self.log_running(worker),
            Action::Log {
                level,
                code,
                worker,
                text,
            } => {
                let pid = worker.and_then(|worker| self.pid(worker));
                let pid = pid.unwrap_or_else(sys::getpid);
                self.log.text(level, pid, code, &text);
            }
            Action::Look => self.next_sample = Some(board::now_ms()),
            Action::End => self.ended = true,
        }
    }

    fn pid(&self, worker: WorkerId) -> Option<u32> {
        self.processes.get(&worker).and_then(|process| process.pid)
    }

    fn kill(&mut self, worker: WorkerId, signal: i32) {
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        match process.pid {
            Some(pid) => sys::kill(pid, signal),
            // A forked worker that has not said who it is ends when its channel does.
            None => {
                process.control = None;
                self.processes.remove(&worker);
                self.events.push_back(Event::Silent { worker });
            }
        }
    }

    fn log_running(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else {
            return;
        };
        let pid = process.pid.unwrap_or_else(sys::getpid);
        for request in running(process) {
            let text = format!(
                "it was serving, for {}: {}",
                Seconds(board::now_ms().saturating_sub(request.since_ms)),
                String::from_utf8_lossy(&request.text)
            );
            let code = Some(messages::REQUEST_LOST);
            self.log.text(Level::Warning, pid, code, &text);
        }
    }

    fn adopt(
        &mut self,
        id: WorkerId,
        role: Role,
        started: process::Started,
    ) -> Result<u32, String> {
        let process::Started {
            pid,
            ends,
            output,
            complaints,
        } = started;
        // Not for each worker again.
        if complaints != self.env_complaints {
            for text in &complaints {
                let code = Some(messages::BAD_ENV_LINE);
                self.log.text(Level::Warning, pid, code, text);
            }
            self.env_complaints = complaints;
        }
        let output = Output::new(output);
        let watched = self
            .epoll
            .add(&ends.control, Source::Control(id).token())
            .and_then(|()| self.epoll.add(output.fd(), Source::Output(id).token()));
        if let Err(error) = watched {
            sys::kill(pid, libc::SIGKILL);
            return Err(format!("a process cannot be watched: {error}"));
        }
        self.outputs.insert(id, (output, pid));
        self.processes.insert(
            id,
            Process {
                pid: Some(pid),
                role,
                control: Some(ends.control),
                board: ends.board,
            },
        );
        Ok(pid)
    }

    fn fork(&mut self, template: WorkerId, worker: WorkerId, slot: usize) -> Result<(), String> {
        let channel = self
            .processes
            .get(&template)
            .and_then(|process| process.control.as_ref())
            .ok_or("the template has gone")?;
        let ends = process::fork(&self.config, channel, self.sockets.of_slot(slot))?;
        self.epoll
            .add(&ends.control, Source::Control(worker).token())
            .map_err(|error| format!("a process cannot be watched: {error}"))?;
        self.processes.insert(
            worker,
            Process {
                pid: None,
                role: Role::Worker,
                control: Some(ends.control),
                board: ends.board,
            },
        );
        Ok(())
    }

    fn readable(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Lifeline => self.read_lifeline(),
            Source::Control(id) => self.read_control(id),
            Source::Output(id) => {
                self.read_output(id);
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                libc::SIGTERM | libc::SIGINT => self.report(Event::Terminate),
                libc::SIGUSR1 => self.report(Event::Replace),
                _ => {
                    while let Some(reaped) = sys::reap() {
                        self.reaped(reaped);
                    }
                }
            }
        }
    }

    fn read_lifeline(&mut self) {
        let Some(lifeline) = &self.lifeline else {
            return;
        };
        // Nobody writes to it; what can be read is its end.
        if sys::read(lifeline, &mut [0; 16]) == Got::End {
            self.epoll.remove(lifeline);
            self.lifeline = None;
            self.report(Event::ClientsGone);
        }
    }

    fn read_control(&mut self, id: WorkerId) {
        let mut buffer = vec![0; control::LARGEST];
        loop {
            let Some(process) = self.processes.get_mut(&id) else {
                return;
            };
            let Some(control) = &process.control else {
                return;
            };
            match sys::read(control, &mut buffer) {
                Got::Nothing => return,
                Got::Bytes(count) => self.take_message(id, &buffer[..count]),
                Got::End => {
                    process.control = None;
                    if process.pid.is_none() {
                        self.processes.remove(&id);
                    }
                    self.report(Event::Silent { worker: id });
                    return;
                }
            }
        }
    }

    fn take_message(&mut self, id: WorkerId, packet: &[u8]) {
        let pid = self.pid(id).unwrap_or_else(sys::getpid);
        match FromWorker::decode(packet) {
            Ok(FromWorker::Log { level, line }) => self.log.line(level, pid, None, &line),
            Ok(message) => {
                if let FromWorker::Ready { pid } = message {
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.pid.get_or_insert(pid);
                    }
                }
                self.report(Event::Said {
                    worker: id,
                    message,
                });
            }
            Err(_) => self.log.text(
                Level::Warning,
                pid,
                Some(messages::BAD_MESSAGE),
                "sent a control message that cannot be read; are the gateway and rwsgi-daemon \
                 of one build?",
            ),
        }
    }

    /// Logs what there is; the pipe is forgotten at its end.
    fn read_output(&mut self, id: WorkerId) {
        let Some((output, pid)) = self.outputs.get_mut(&id) else {
            return;
        };
        let log = &self.log;
        let pid = *pid;
        if output.read(|line| log.line(Level::Error as u8, pid, None, line)) {
            self.epoll.remove(output.fd());
            if !self.processes.contains_key(&id) {
                self.outputs.remove(&id);
            }
        }
    }

    fn reaped(&mut self, reaped: Reaped) {
        let find = |reactor: &Reactor| {
            reactor
                .processes
                .iter()
                .find(|(_, process)| process.pid == Some(reaped.pid))
                .map(|(id, _)| *id)
        };
        let id = find(self).or_else(|| {
            // Perhaps a forked worker whose first message was not read yet.
            let unknown: Vec<WorkerId> = self
                .processes
                .iter()
                .filter(|(_, process)| process.pid.is_none())
                .map(|(id, _)| *id)
                .collect();
            for id in unknown {
                self.read_control(id);
            }
            find(self)
        });
        let Some(id) = id else { return };
        self.read_control(id);
        self.read_output(id);
        let last_words = self.outputs.get_mut(&id).and_then(|(output, pid)| {
            let (log, pid) = (&self.log, *pid);
            output.flush(&mut |line: &[u8]| log.line(Level::Error as u8, pid, None, line));
            output.last_words()
        });
        let Some(process) = self.processes.get(&id) else {
            return;
        };
        let limit = u64::from(self.config.cpu_time_limit);
        let death = Death {
            ended: ended(reaped.status),
            out_of_memory: self.out_of_memory.happened(),
            out_of_cpu_time: limit > 0 && reaped.cpu_s >= limit,
            last_words,
            running: running(process),
        };
        self.report(Event::Died { worker: id, death });
        self.processes.remove(&id);
        self.read_output(id);
    }

    fn sample(&mut self) {
        let samples: Vec<(WorkerId, Sample)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.role == Role::Worker)
            .filter_map(|(id, process)| Some((*id, self.look_at(process)?)))
            .collect();
        for (worker, sample) in samples {
            if self.config.max_rss > 0 && sample.rss.is_none() && !self.said_no_rss {
                self.said_no_rss = true;
                self.log.text(
                    Level::Warning,
                    sys::getpid(),
                    Some(messages::NO_RSS),
                    "the size of workers cannot be read from /proc (is it missing in the \
                     chroot?): max-rss has no effect",
                );
            }
            self.report(Event::Sampled { worker, sample });
        }
    }

    fn look_at(&self, process: &Process) -> Option<Sample> {
        use core::sync::atomic::Ordering::Relaxed;
        let board = process.board.as_ref()?;
        let summary = board.summary();
        Some(Sample {
            started: summary.started.load(Relaxed),
            loaded: summary.loaded.load(Relaxed),
            pulse_ms: summary.pulse_ms.load(Relaxed),
            activity_ms: summary.activity_ms.load(Relaxed),
            first_request_ms: summary.first_request_ms.load(Relaxed),
            running: board.running(),
            rss: process
                .pid
                .filter(|_| self.config.max_rss > 0)
                .and_then(memory::resident),
        })
    }
}

fn running(process: &Process) -> Vec<Running> {
    process
        .board
        .as_ref()
        .map(Board::running)
        .unwrap_or_default()
}

fn ended(status: i32) -> Ended {
    if libc::WIFSIGNALED(status) {
        Ended::Signal {
            number: libc::WTERMSIG(status),
            core: libc::WCOREDUMP(status),
        }
    } else {
        Ended::Exit(libc::WEXITSTATUS(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for source in [
            Source::Signals,
            Source::Lifeline,
            Source::Control(7),
            Source::Output(u32::MAX),
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(ended(3 << 8), Ended::Exit(3));
        let killed = Ended::Signal {
            number: 9,
            core: false,
        };
        assert_eq!(ended(9), killed);
    }
}
