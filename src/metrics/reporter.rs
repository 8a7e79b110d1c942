//! The reporter of telemetry: a thread that sends datagrams to a UNIX socket, whether anybody listens
//! or not.
//!
//! It never takes the GIL, so that it goes on when an application does not give it back; what needs
//! the GIL is done by a thread of its own ([`gc`]).

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::datagram::{self, End, Identity, Sample};
use super::slow::SlowRequest;
use super::{gc, observation, recorder};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach;
use crate::python::runtime::{self, Runtime};
use crate::wsgi::server::clock_us;

/// Where and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// The path of the socket.
    pub path: Vec<u8>,
    /// Seconds between two reports.
    pub interval_s: f64,
}

/// What the receiver may let wait.
const SEND_BUFFER: i32 = 64 * 1024;

/// How long a receiver is waited for whose queue is full; the system's are short, ten datagrams
/// usually. Only the reporter's threads wait, once in a report.
const PATIENCE: Duration = Duration::from_millis(100);

/// Requests that are running for long, reported at a time.
const SLOW_AT_A_TIME: usize = 16;

/// How long before a worker is killed its end is reported.
const BEFORE_DEADLINE: Duration = Duration::from_millis(500);

struct Reporter {
    service: Service,
    address: libc::sockaddr_un,
    socket: UnixDatagram,
    /// Whether the receiver is waited for: not again in a report where that was in vain.
    patient: AtomicBool,
    identity: Identity,
    /// When the process began, microseconds since the epoch.
    start_us: i64,
    sequence: AtomicU32,
    /// The threads shall end.
    ending: AtomicBool,
    /// The end has been announced.
    stopping: AtomicBool,
    /// The end has been reported.
    stopped: AtomicBool,
    /// Why the process ends, and when it will be killed.
    end: Mutex<(&'static str, Option<Instant>)>,
    threads: Mutex<Vec<Thread>>,
}

static REPORTER: OnceLock<Reporter> = OnceLock::new();

/// The reporter of this very process, not of one that it was forked from.
fn reporter() -> Option<&'static Reporter> {
    REPORTER
        .get()
        .filter(|reporter| reporter.identity.pid == std::process::id())
}

/// Starts to report, if that is configured; to be called before requests are served, by a thread
/// that is not attached. `parent_pid` is httpd's parent.
pub fn start(runtime: &'static Runtime) {
    let Some(service) = &runtime.options.metrics.service else {
        return;
    };
    if let Err(error) = try_start(runtime, service) {
        let line = format!(
            "{}telemetry for '{}' could not be started and is not sent: {error}",
            messages::NO_TELEMETRY,
            String::from_utf8_lossy(&service.path)
        );
        runtime::log(Level::Warning, &line);
    }
}

fn try_start(runtime: &'static Runtime, service: &Service) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let room = SEND_BUFFER;
    // SAFETY: an int of that size; a smaller buffer is no reason to give up.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const room).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
    let reporter = REPORTER.get_or_init(|| Reporter {
        address: address(&service.path),
        patient: AtomicBool::new(true),
        service: service.clone(),
        socket,
        identity: identity(runtime),
        start_us: recorder::process_start_us(),
        sequence: AtomicU32::new(0),
        ending: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        end: Mutex::new(("", None)),
        threads: Mutex::default(),
    });
    recorder::start();
    reporter.send(&datagram::started(
        &reporter.identity,
        reporter.next(),
        reporter.start_us,
    ));
    let _blocked = BlockedSignals::new();
    spawn(reporter, "rwsgi-telemetry", move || reporter.run())?;
    spawn(reporter, "rwsgi-gc", move || reporter.run_gc(runtime))?;
    runtime::log(
        Level::Info,
        &format!(
            "telemetry is sent to '{}' every {} s",
            String::from_utf8_lossy(&service.path),
            service.interval_s
        ),
    );
    Ok(())
}

/// The address of a socket; what is too long, and directives do not let through, is cut.
fn address(path: &[u8]) -> libc::sockaddr_un {
    // SAFETY: plain data, for which all zeroes is a value.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let room = address.sun_path.len() - 1;
    for (place, byte) in address.sun_path[..room].iter_mut().zip(path) {
        *place = *byte as core::ffi::c_char;
    }
    address
}

fn spawn(
    reporter: &Reporter,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    let run = move || crate::python::slots::boundary(|| (), run);
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)?;
    let mut threads = reporter
        .threads
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    threads.push(started.thread().clone());
    Ok(())
}

/// While it lives, threads that are started take no signals: these are the server's.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> BlockedSignals {
        // SAFETY: both sets are filled by the calls.
        unsafe {
            let mut all: libc::sigset_t = core::mem::zeroed();
            let mut before: libc::sigset_t = core::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            BlockedSignals(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, core::ptr::null_mut()) };
    }
}

fn identity(runtime: &Runtime) -> Identity {
    let options = &runtime.options;
    let [major, minor, patch] = crate::MOD_WSGI_VERSION;
    let [httpd_major, httpd_minor, httpd_patch] = options.server_version;
    // SAFETY: a static C string.
    let python = unsafe { core::ffi::CStr::from_ptr(pyo3::ffi::Py_GetVersion()) };
    let python = python.to_bytes().split(|&c| c == b' ').next();
    Identity {
        pid: std::process::id(),
        parent_pid: options.metrics.parent_pid,
        mod_wsgi_version: format!("{major}.{minor}.{patch}").into_bytes(),
        python_version: python.unwrap_or_default().to_vec(),
        apache_version: format!("Apache/{httpd_major}.{httpd_minor}.{httpd_patch}").into_bytes(),
        mpm_name: options.mpm_name.clone(),
        hostname: hostname(),
        process_group: options.process_group.clone().unwrap_or_default(),
        switch_interval_s: switch_interval(runtime),
    }
}

fn hostname() -> Vec<u8> {
    let mut name = [0_u8; 256];
    // SAFETY: a buffer of that size, with room for the end.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0 {
        return Vec::new();
    }
    let end = name.iter().position(|&c| c == 0).unwrap_or(0);
    name[..end].to_vec()
}

fn switch_interval(runtime: &Runtime) -> f64 {
    let Some(main) = runtime.interpreters().pop() else {
        return 0.0;
    };
    let guard = attach::attach(main);
    match main.prelude().switch_interval(guard.token()) {
        Ok(seconds) => seconds,
        Err(raised) => {
            raised.clear(guard.token());
            0.0
        }
    }
}

impl Reporter {
    fn next(&self) -> u32 {
        self.sequence
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Sends a datagram; it is lost if nobody listens, or if whoever does has no room for long.
    fn send(&self, datagram: &[u8]) {
        let patient = self.patient.load(Ordering::Relaxed);
        let flags = if patient { 0 } else { libc::MSG_DONTWAIT };
        // SAFETY: bytes of that length, and an address of that size.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                flags | libc::MSG_NOSIGNAL,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_un>() as libc::socklen_t,
            )
        };
        if sent < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock {
            self.patient.store(false, Ordering::Relaxed);
        }
    }

    /// A report begins.
    fn begin_report(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Sleeps until `then`, or until the process ends.
    fn sleep_until(&self, then: Instant) {
        loop {
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_ending() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    fn interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.service.interval_s).unwrap_or(Duration::from_secs(1))
    }

    fn run(&self) {
        let mut next = Instant::now() + self.interval();
        loop {
            let deadline = self.deadline();
            self.sleep_until(deadline.map_or(next, |deadline| deadline.min(next)));
            if self.is_ending() {
                return;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                // What has not ended by now is about to be killed.
                let mut slow = recorder::slow_completed();
                slow.extend(slow_running());
                self.final_report(recorder::sample(), &slow);
                return;
            }
            if now >= next {
                next += self.interval();
                if next <= now {
                    // The machine was asleep, or very busy.
                    next = now + self.interval();
                }
                if let Some(sample) = recorder::sample() {
                    // Those that have ended come before those that go on.
                    let mut slow = recorder::slow_completed();
                    slow.extend(slow_running());
                    self.report(&sample, &slow);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// An interval.
    fn report(&self, sample: &Sample, slow: &[SlowRequest]) {
        self.begin_report();
        let slow_us = recorder::slow_us();
        let interval_s = self.service.interval_s;
        let datagram = datagram::requests(
            &self.identity,
            self.next(),
            sample,
            interval_s,
            slow_us as f64 / 1e6,
        );
        self.send(&datagram);
        let now = clock_us();
        for request in slow {
            let datagram = datagram::slow_request(&self.identity, self.next(), now, request);
            self.send(&datagram);
        }
    }

    fn run_gc(&self, runtime: &'static Runtime) {
        loop {
            self.sleep_until(Instant::now() + self.interval());
            if self.is_ending() {
                return;
            }
            self.begin_report();
            let interpreters = runtime.interpreters();
            for interpreter in &interpreters {
                let guard = attach::attach(interpreter);
                let report = gc::take(guard.token());
                drop(guard);
                if self.is_ending() {
                    return;
                }
                let group = interpreter.group();
                let name = (interpreters.len() > 1).then_some(group);
                self.report_gc(name, &report);
            }
        }
    }

    fn report_gc(&self, interpreter: Option<&[u8]>, report: &gc::Report) {
        let now = clock_us();
        let identity = &self.identity;
        self.send(&datagram::gc_snapshot(
            identity,
            self.next(),
            now,
            interpreter,
            &report.counters,
            report.dropped,
        ));
        for event in &report.events {
            let datagram = datagram::gc_event(identity, self.next(), now, interpreter, event);
            self.send(&datagram);
        }
    }

    /// The end of the process, told once.
    fn final_report(&self, sample: Option<Sample>, slow: &[SlowRequest]) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(sample) = sample {
            self.report(&sample, slow);
        }
        let reason = match self.end.try_lock() {
            Ok(end) => end.0,
            Err(_) => "",
        };
        let (active, requests) = recorder::counts();
        let end = End {
            reason,
            start_us: self.start_us,
            now_us: clock_us(),
            requests,
            active,
        };
        self.send(&datagram::stopped(&self.identity, self.next(), &end));
    }
}

/// The process is about to end, for a reason in mod_wsgi's words; `limit`: it is killed after that
/// time. Called when that is decided, the first time counts.
pub fn stopping(reason: &'static str, limit: Option<Duration>) {
    let Some(reporter) = reporter() else {
        return;
    };
    if reporter.stopping.swap(true, Ordering::AcqRel) {
        return;
    }
    if let Ok(mut end) = reporter.end.try_lock() {
        let deadline = limit
            .and_then(|limit| Instant::now().checked_add(limit.saturating_sub(BEFORE_DEADLINE)));
        *end = (reason, deadline);
    }
    let (active, _) = recorder::counts();
    reporter.send(&datagram::stopping(
        &reporter.identity,
        reporter.next(),
        clock_us(),
        reason,
        active,
    ));
    reporter.wake();
}

/// The process ends now: its requests have ended. May be called from a signal handler of the
/// thread that is interrupted in [`recorder`]: waits for nothing.
pub fn stopped() {
    let Some(reporter) = reporter() else {
        return;
    };
    reporter.ending.store(true, Ordering::Release);
    reporter.wake();
    reporter.final_report(
        recorder::sample_without_waiting(),
        &recorder::slow_completed_without_waiting(),
    );
}

/// Slow requests that have not ended.
fn slow_running() -> Vec<SlowRequest> {
    if recorder::slow_us() == 0 {
        return Vec::new();
    }
    let now = clock_us();
    observation::all()
        .into_iter()
        .filter_map(|observation| observation.slow_active(now))
        .take(SLOW_AT_A_TIME)
        .collect()
}

impl Reporter {
    fn wake(&self) {
        if let Ok(threads) = self.threads.try_lock() {
            for thread in &*threads {
                thread.unpark();
            }
        }
    }
}
