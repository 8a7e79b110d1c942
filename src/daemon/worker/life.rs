//! The life of a worker: what it finds, what it loads, how it is told what to do, how it ends.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::ffi;

use super::attendant::{self, Wish};
use super::channel::{Channel, Received};
use super::{Worker, drain_eventfd, host, imports, signals, title};
use crate::daemon::board::Board;
use crate::daemon::control::{FromWorker, Reason, Script, ToWorker};
use crate::daemon::fds;
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages;
use crate::metrics::reporter;
use crate::python::attach;
use crate::python::exceptions;
use crate::python::raise::Raised;
use crate::python::runtime::{self, Runtime};
use crate::python::stop;

static WORKER: OnceLock<&'static Worker> = OnceLock::new();
pub(super) static CHANNEL: OnceLock<Channel> = OnceLock::new();
pub(super) static ENDING: AtomicBool = AtomicBool::new(false);

/// Is the worker of this process.
///
/// # Safety
/// Called on the main thread, attached to the main interpreter, and nothing else of this module has
/// been called in this process.
pub unsafe fn run() -> ! {
    let config = match read_config() {
        Ok(config) => config,
        Err(error) => fail(None, &error),
    };
    let channel = channel(config.log_level);
    if let Err(error) = check_descriptors(config.threads > 0) {
        fail(Some(channel), &error);
    }
    prepare_process(&config, channel);
    let worker = match new_worker(config, channel) {
        Ok(worker) => worker,
        Err(error) => fail(Some(channel), &error),
    };
    signals::install(worker.wake_descriptor());
    if let Err(error) = runtime::adopt(host::options(&worker.config), host::services()) {
        fail(Some(channel), &error);
    }
    // Python's own handler of SIGINT came with `import signal`, if not before.
    signals::install(worker.wake_descriptor());
    let Some(runtime) = runtime::runtime() else {
        fail(Some(channel), "the runtime is not there");
    };
    be_worker(runtime);
    serve(worker, runtime)
}

/// Loads the scripts, and does what there is to be done until the end.
pub fn serve(worker: &'static Worker, runtime: &'static Runtime) -> ! {
    if worker.config.threads == 0 {
        worker.run_scripts(runtime);
        worker.end()
    }
    let scripts = imports::Listed {
        imports: worker.config.imports.clone(),
        required: worker.config.required.clone(),
    };
    if let Err(message) = imports::load_listed(runtime, worker.channel, &scripts) {
        worker.channel.tell(&message);
        exit(1);
    }
    if let Err(message) = worker.start_applications() {
        worker.channel.tell(&message);
        exit(1);
    }
    // Before anybody may send signals to a worker that says it is ready.
    let python = PythonSignals::new(worker.config.restrict_signal);
    runtime.begin_metrics();
    worker.begin();
    worker.obey(&python);
    worker.end()
}

/// The control channel of this process.
pub fn channel(log_level: u32) -> &'static Channel {
    CHANNEL.get_or_init(|| Channel::usual(log_level))
}

/// Sets up the main interpreter as that of a worker.
pub fn be_worker(runtime: &Runtime) {
    let Some(main) = runtime.interpreters().pop() else {
        return;
    };
    let guard = attach::attach(main);
    let py = guard.token();
    let signal = attendant::wanted_dump_signal();
    let result = main.prelude().be_worker(py, signal);
    if let Err(raised) = result {
        let what = "the interpreter could not be set up as that of a worker";
        let code = messages::WORKER_START_FAILED;
        exceptions::log_for_process(py, code, what, &raised.take(py));
    }
}

/// Ends the process at once.
pub fn exit(code: i32) -> ! {
    // SAFETY: no pointers; exit handlers of C libraries are not run while threads may be in Python.
    unsafe { libc::_exit(code) }
}

/// The worker cannot begin.
pub fn fail(channel: Option<&Channel>, why: &str) -> ! {
    let line = format!(
        "{}the worker cannot begin: {why}",
        messages::WORKER_START_FAILED
    );
    let message = FromWorker::Failed {
        script: None,
        text: line.clone().into_bytes(),
    };
    if channel.is_none_or(|channel| channel.send(&message).is_err()) {
        eprintln!("{line}");
    }
    exit(1)
}

/// Reads the configuration; its descriptor's offset is shared with other processes.
///
/// # Errors
/// Why not.
pub fn read_config() -> Result<GroupConfig, String> {
    let mut text = Vec::new();
    loop {
        let mut block = vec![0; 64 * 1024];
        // SAFETY: a buffer of that size.
        let got = unsafe {
            libc::pread(
                fds::CONFIG,
                block.as_mut_ptr().cast(),
                block.len(),
                text.len() as libc::off_t,
            )
        };
        match usize::try_from(got) {
            Ok(0) => break,
            Ok(got) => text.extend_from_slice(&block[..got]),
            Err(_) => {
                let error = io::Error::last_os_error();
                let fd = fds::CONFIG;
                return Err(format!(
                    "descriptor {fd}, the configuration, cannot be read: {error}; workers are \
                     started by rwsgi-daemon"
                ));
            }
        }
    }
    GroupConfig::decode(&text).map_err(|error| format!("the configuration is damaged: {error}"))
}

fn option(fd: i32, name: i32) -> Option<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: an int is filled, whose size is given.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut length,
        )
    };
    (result == 0).then_some(value)
}

/// Checks that the descriptors are what they should be: a mistake here shows as a hang otherwise.
///
/// # Errors
/// Which is not.
pub fn check_descriptors(listener: bool) -> Result<(), String> {
    if option(fds::CONTROL, libc::SO_TYPE) != Some(libc::SOCK_SEQPACKET) {
        return Err(format!("descriptor {} is no control channel", fds::CONTROL));
    }
    if listener
        && (option(fds::LISTENER, libc::SO_ACCEPTCONN) != Some(1)
            || option(fds::LISTENER, libc::SO_DOMAIN) != Some(libc::AF_UNIX))
    {
        let fd = fds::LISTENER;
        return Err(format!("descriptor {fd} is no listening UNIX socket"));
    }
    for fd in [
        fds::CONFIG,
        fds::CONTROL,
        fds::BOARD,
        fds::LISTENER,
        fds::SCOREBOARD,
    ] {
        // SAFETY: no pointers. One that is not open is no problem here. Programs that the
        // application starts shall not have them.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    if listener {
        // SAFETY: as above; all who accept from it are workers.
        unsafe {
            let flags = libc::fcntl(fds::LISTENER, libc::F_GETFL);
            libc::fcntl(fds::LISTENER, libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
    }
    Ok(())
}

/// What concerns the process, before Python is set up.
pub fn prepare_process(config: &GroupConfig, channel: &Channel) {
    if !config.core_dumps {
        // SAFETY: no pointers. exec has made the process dumpable again.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    }
    if let Some(name) = &config.display_name {
        title::set(name);
    }
    if let Some(locale) = &config.locale {
        let text = String::from_utf8_lossy(locale).into_owned();
        let known = std::ffi::CString::new(locale.clone()).is_ok_and(|locale| {
            // SAFETY: a C string; no other thread runs yet.
            unsafe { !libc::setlocale(libc::LC_ALL, locale.as_ptr()).is_null() }
        });
        if !known {
            let line = format!(
                "{}the locale '{text}' is not supported by this system; `locale -a` lists those \
                 that are",
                messages::WORKER_LOCALE
            );
            channel.log(Level::Warning, line.as_bytes());
        }
    }
}

/// Makes the worker from the descriptors that it has.
///
/// # Errors
/// Why not.
pub fn new_worker(
    config: GroupConfig,
    channel: &'static Channel,
) -> Result<&'static Worker, String> {
    let rows = u16::try_from(config.threads).map_err(|_| "threads= is too large".to_owned())?;
    let board = match Board::map(fds::BOARD, rows) {
        Ok(board) => board,
        // Nobody watches a service script.
        Err(_) if rows == 0 => Board::create(0).map_err(|error| error.to_string())?.0,
        Err(error) => return Err(format!("descriptor {} is no board: {error}", fds::BOARD)),
    };
    let worker = Worker::new(config, board, channel).map_err(|error| error.to_string())?;
    let worker: &'static Worker = Box::leak(Box::new(worker));
    let _ = WORKER.set(worker);
    // SAFETY: a function that only closes descriptors.
    unsafe { libc::pthread_atfork(None, None, Some(super::in_forked_child)) };
    Ok(worker)
}

/// How long the control loop waits before it tries again to accept connections.
const ACCEPT_AGAIN_MS: i32 = 200;

impl Worker {
    /// Tells the supervisor that a script has been loaded.
    pub fn tell_loaded(&self, script: Script) {
        let summary = self.board.summary();
        summary.loaded.fetch_add(1, Ordering::Relaxed);
        self.channel.tell(&FromWorker::Loaded { script });
    }

    /// Starts the threads and says that the worker is ready.
    pub fn begin(&'static self) {
        if let Err(error) = self.start_threads() {
            fail(
                Some(self.channel),
                &format!("no thread can be started: {error}"),
            );
        }
        self.start_attendant();
        signals::started();
        self.channel.tell(&FromWorker::Ready {
            pid: std::process::id(),
        });
    }

    /// The control loop: returns when all requests have been answered after the worker has been
    /// told to end.
    fn obey(&'static self, python: &PythonSignals) {
        let mut control_open = true;
        loop {
            if self.is_draining() && self.serving.load(Ordering::Acquire) == 0 {
                return;
            }
            let again = self.accept_again.load(Ordering::Acquire) != 0;
            let mut waits = [
                libc::pollfd {
                    fd: self.control.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                },
                libc::pollfd {
                    fd: if control_open { self.channel.fd() } else { -1 },
                    events: libc::POLLIN,
                    revents: 0,
                },
                libc::pollfd {
                    fd: python.fd(),
                    events: libc::POLLIN,
                    revents: 0,
                },
            ];
            let timeout = if again { ACCEPT_AGAIN_MS } else { -1 };
            // SAFETY: valid structures.
            let ready = unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as _, timeout) };
            if ready == 0 && again {
                self.try_to_accept_again();
            }
            if ready <= 0 {
                continue;
            }
            if waits[2].revents != 0 {
                python.handle();
            }
            if waits[0].revents != 0 {
                drain_eventfd(self.control.as_raw_fd());
                self.on_signals(signals::take());
                if self.is_draining() {
                    // A thread has ended: it may have left something behind.
                    self.let_go();
                }
            }
            if waits[1].revents != 0 {
                control_open = self.on_messages();
            }
        }
    }

    fn on_signals(&'static self, noted: u32) {
        if noted & signals::TERMINATE != 0 && !self.is_draining() {
            let reason = Reason::ShutdownSignal;
            self.channel.tell(&FromWorker::Retire { reason });
            self.announce_end(reason, false);
            self.leave(reason);
        }
        if noted & signals::GRACEFUL != 0 {
            let reason = match self.config.eviction_timeout {
                0 => Reason::GracefulSignal,
                _ => Reason::EvictionSignal,
            };
            self.channel.tell(&FromWorker::Retire { reason });
        }
        if noted & signals::CPU_TIME != 0 {
            let reason = Reason::CpuTimeLimit;
            self.channel.tell(&FromWorker::Retire { reason });
        }
        for (bit, name, number) in [
            (signals::HANG_UP, "SIGHUP", libc::SIGHUP),
            (signals::USER_2, "SIGUSR2", libc::SIGUSR2),
        ] {
            if noted & bit != 0 {
                self.events.signal(name, number);
            }
        }
    }

    /// The worker is going to end: telemetry tells it, and when the supervisor will have lost its
    /// patience. `with_group`: the whole group ends.
    fn announce_end(&self, reason: Reason, with_group: bool) {
        let config = &self.config;
        let requests = match reason {
            Reason::StartupTimeout | Reason::DeadlockTimeout => 0,
            Reason::EvictionSignal if config.eviction_timeout > 0 => config.eviction_timeout,
            _ if with_group => 0,
            _ => config.graceful_timeout,
        };
        let seconds = u64::from(requests) + u64::from(config.shutdown_timeout);
        let limit = (seconds > 0).then(|| Duration::from_secs(seconds));
        reporter::stopping(reason.name(), limit);
    }

    /// Whether the channel is still open.
    fn on_messages(&'static self) -> bool {
        loop {
            match self.channel.receive() {
                Received::Message(message) => self.on_message(message),
                Received::Garbage => {
                    let line = format!(
                        "{}a message of rwsgi-daemon was not understood; install daemon and gateway \
                         of one build",
                        messages::WORKER_CONTROL
                    );
                    self.channel.log(Level::Error, line.as_bytes());
                }
                Received::Nothing => return true,
                Received::Closed => {
                    if !self.is_draining() {
                        self.announce_end(Reason::SupervisorGone, true);
                        self.leave(Reason::SupervisorGone);
                    }
                    return false;
                }
            }
        }
    }

    fn on_message(&'static self, message: ToWorker) {
        match message {
            ToWorker::Go => {
                if let Err(error) = self.go() {
                    fail(
                        Some(self.channel),
                        &format!("the listener cannot be used: {error}"),
                    );
                }
            }
            ToWorker::Drain { reason } => {
                if !self.is_draining() {
                    let line = format!("the worker ends: {}", reason.name());
                    self.channel.log(Level::Info, line.as_bytes());
                    self.announce_end(reason, reason == Reason::ShutdownSignal);
                    self.leave(reason);
                }
            }
            ToWorker::StaysOld {
                script,
                mtime_us,
                retry_ms,
            } => {
                let retry = Duration::from_millis(retry_ms.into());
                self.serve_again(self.waiting.stays_old(script, mtime_us, retry));
            }
            ToWorker::Interrupt { row, number } => self.wish(Wish::Interrupt { row, number }),
            ToWorker::DumpRequest { row, number } => self.wish(Wish::Dump { row, number }),
            ToWorker::DumpAll => self.dump_all(),
            // For a template only.
            ToWorker::Fork => {}
        }
    }

    /// All requests have been answered: says so, runs exit handlers, ends the process.
    pub fn end(&'static self) -> ! {
        self.let_go();
        ENDING.store(true, Ordering::Relaxed);
        reporter::stopped();
        self.channel.tell(&FromWorker::Drained);
        let deadline = match self.config.shutdown_timeout {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds.into()),
        };
        stop::stop(deadline, || self.events.finish());
        exit(0)
    }
}

/// Signal handlers of applications that may have some. Python runs them on its main thread only,
/// which is in the control loop, so it has to be told.
struct PythonSignals(Option<(OwnedFd, OwnedFd)>);

impl PythonSignals {
    fn new(restricted: bool) -> PythonSignals {
        let mut pipe = [-1; 2];
        if restricted {
            return PythonSignals(None);
        }
        // SAFETY: two descriptors are filled in, which are ours.
        let pipe = unsafe {
            if libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
                return PythonSignals(None);
            }
            (OwnedFd::from_raw_fd(pipe[0]), OwnedFd::from_raw_fd(pipe[1]))
        };
        if let Some(main) = runtime::runtime().and_then(|runtime| runtime.interpreters().pop()) {
            let guard = attach::attach(main);
            let py = guard.token();
            let fd = pipe.1.as_raw_fd();
            if let Err(raised) = main.prelude().write_signals_to(py, fd) {
                log_handler_failure(py, raised);
            }
        }
        PythonSignals(Some(pipe))
    }

    /// Readable when there is a signal; negative where there are none.
    fn fd(&self) -> i32 {
        self.0.as_ref().map_or(-1, |(read, _)| read.as_raw_fd())
    }

    fn handle(&self) {
        let mut bytes = [0_u8; 64];
        // SAFETY: a buffer of that size; an open descriptor that does not block.
        while unsafe { libc::read(self.fd(), bytes.as_mut_ptr().cast(), bytes.len()) } > 0 {}
        let Some(main) = runtime::runtime().and_then(|runtime| runtime.interpreters().pop()) else {
            return;
        };
        let guard = attach::attach(main);
        let py = guard.token();
        // SAFETY: attached to the main interpreter, on its main thread.
        if unsafe { ffi::PyErr_CheckSignals() } != 0 {
            log_handler_failure(py, Raised);
        }
    }
}

fn log_handler_failure(py: attach::Attached, raised: Raised) {
    let what = "a signal handler raised, which changes nothing";
    let code = messages::SIGNAL_HANDLER_RAISED;
    exceptions::log_for_process(py, code, what, &raised.take(py));
}

/// The worker of this process.
pub fn worker() -> Option<&'static Worker> {
    WORKER.get().copied()
}
