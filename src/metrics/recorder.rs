//! The figures of the process since somebody last asked.
//!
//! There is one reader: the reporter of telemetry where one is configured, else whoever calls
//! `request_metrics()`. Every reading begins a new interval.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::datagram::{Sample, ThreadSample};
use super::figures::Cpu;
use super::interval::{Completed, Interval};
use super::observation::{self, Reader};
use super::slow::{Ring, SlowRequest};
use crate::wsgi::server::clock_us;

/// How the process is set up. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Threads that may serve requests.
    pub threads: u32,
    /// Whether the process belongs to a process group.
    pub daemon: bool,
    /// Requests that take longer are told of one by one; 0: none.
    pub slow_us: u64,
    /// Whether they are told with their `User-Agent`.
    pub with_user_agent: bool,
    /// How often telemetry is sent; 0: never.
    pub interval_us: u64,
}

struct State {
    setup: Setup,
    process_start_us: i64,
    /// The beginning of the interval, microseconds since the epoch; 0: nothing is recorded.
    since_us: i64,
    /// What the process had used of the processor then.
    cpu: Cpu,
    interval: Interval,
    slow: Option<Ring>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// Whether figures are recorded: the same as that [`State::since_us`] is not 0.
static RECORDING: AtomicBool = AtomicBool::new(false);
/// The process whose figures these are.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// [`Setup::slow_us`], for every request to look at.
static SLOW_US: AtomicU64 = AtomicU64::new(0);
static WITH_USER_AGENT: AtomicBool = AtomicBool::new(false);
/// Observed requests that run.
static ACTIVE: AtomicU32 = AtomicU32::new(0);
/// Observed requests that have ended.
static ENDED: AtomicU64 = AtomicU64::new(0);

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process begins, or is another one since a fork. What has been recorded is forgotten; whether
/// is not.
pub fn begin(setup: Setup) {
    let now = clock_us();
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    let recording = RECORDING.load(Ordering::Relaxed);
    SLOW_US.store(setup.slow_us, Ordering::Relaxed);
    WITH_USER_AGENT.store(setup.with_user_agent, Ordering::Relaxed);
    *state() = Some(State {
        setup,
        process_start_us: now,
        since_us: if recording { now } else { 0 },
        cpu: Cpu::of_process(),
        interval: Interval::default(),
        slow: (setup.slow_us > 0 && setup.interval_us > 0)
            .then(|| Ring::new(setup.threads, setup.slow_us, setup.interval_us)),
    });
}

/// Records from now on; again: nothing.
pub fn start() {
    if let Some(state) = &mut *state()
        && state.since_us == 0
    {
        state.since_us = clock_us();
        state.cpu = Cpu::of_process();
        RECORDING.store(true, Ordering::Relaxed);
        observation::want(Reader::Metrics);
    }
}

/// Whether this is the process whose figures these are, and not one that an application has forked:
/// there, locks may be held for ever by threads that have not been forked along.
pub fn is_this_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == std::process::id()
}

/// Whether figures are recorded.
pub fn is_recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// Requests that run, and those that have ended, since figures are recorded.
pub fn counts() -> (u32, u64) {
    (
        ACTIVE.load(Ordering::Relaxed),
        ENDED.load(Ordering::Relaxed),
    )
}

/// When the process began, microseconds since the epoch.
pub fn process_start_us() -> i64 {
    state().as_ref().map_or(0, |state| state.process_start_us)
}

/// From which duration on a request is slow, microseconds; 0: never.
pub(super) fn slow_us() -> u64 {
    SLOW_US.load(Ordering::Relaxed)
}

/// Whether `User-Agent` is told of.
pub(super) fn with_user_agent() -> bool {
    WITH_USER_AGENT.load(Ordering::Relaxed)
}

/// A request begins; how many there are with it.
pub(super) fn enter() -> u32 {
    ACTIVE.fetch_add(1, Ordering::Relaxed) + 1
}

/// A request is over, or has not been served here; how many there were with it.
pub(super) fn leave() -> u32 {
    ACTIVE.fetch_sub(1, Ordering::Relaxed)
}

/// A request has ended. `slow` is what is told of it if it was slow.
pub(super) fn completed(request: &Completed, slow: Option<SlowRequest>) {
    ENDED.fetch_add(1, Ordering::Relaxed);
    if !is_recording() {
        return;
    }
    if let Some(state) = &mut *state() {
        state.interval.add(request);
        if let (Some(ring), Some(slow)) = (&mut state.slow, slow) {
            ring.push(slow);
        }
    }
}

/// What has happened since the last call; `None` if nothing is recorded.
pub fn sample() -> Option<Sample> {
    finish(state().as_mut()?, true)
}

/// The same for a thread that must not wait: it may have been interrupted by a signal while it held
/// the lock.
pub(super) fn sample_without_waiting() -> Option<Sample> {
    let mut state = match STATE.try_lock() {
        Ok(state) => state,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    finish(state.as_mut()?, false)
}

/// Ends the interval.
fn finish(state: &mut State, may_wait: bool) -> Option<Sample> {
    if state.since_us == 0 {
        return None;
    }
    let now = clock_us();
    let cpu = Cpu::of_process();
    let memory_rss = memory_rss();
    let mut sample = Sample {
        start_us: state.since_us,
        stop_us: now,
        period_s: (now.saturating_sub(state.since_us)).max(1) as f64 / 1e6,
        interval: core::mem::take(&mut state.interval),
        cpu: cpu.since(state.cpu),
        memory_rss,
        memory_max_rss: memory_max_rss(memory_rss),
        threads_maximum: state.setup.threads,
        daemon: state.setup.daemon,
        ..Sample::default()
    };
    state.since_us = now;
    state.cpu = cpu;
    sample
        .threads
        .resize(state.setup.threads as usize, ThreadSample::default());
    let all = if may_wait {
        observation::all()
    } else {
        observation::all_without_waiting()
    };
    for observation in all {
        let Some(thread) = observation.take_interval(now, may_wait) else {
            continue;
        };
        sample.threads_started += 1;
        let index = observation.thread_id() as usize - 1;
        if let Some(place) = sample.threads.get_mut(index) {
            *place = thread;
        }
    }
    Some(sample)
}

/// Slow requests that have ended since the last call.
pub(super) fn slow_completed() -> Vec<SlowRequest> {
    match state().as_mut().and_then(|state| state.slow.as_mut()) {
        Some(ring) => ring.take(),
        None => Vec::new(),
    }
}

/// The same for a thread that must not wait.
pub(super) fn slow_completed_without_waiting() -> Vec<SlowRequest> {
    let Ok(mut state) = STATE.try_lock() else {
        return Vec::new();
    };
    match state.as_mut().and_then(|state| state.slow.as_mut()) {
        Some(ring) => ring.take(),
        None => Vec::new(),
    }
}

impl Cpu {
    /// Of this process.
    pub fn of_process() -> Cpu {
        Cpu::of(libc::RUSAGE_SELF)
    }

    /// Of the calling thread.
    pub(super) fn of_this_thread() -> Cpu {
        Cpu::of(libc::RUSAGE_THREAD)
    }

    fn of(who: i32) -> Cpu {
        let microseconds =
            |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        match usage(who) {
            Some(usage) => Cpu {
                user_us: microseconds(usage.ru_utime),
                system_us: microseconds(usage.ru_stime),
            },
            None => Cpu::default(),
        }
    }
}

fn usage(who: i32) -> Option<libc::rusage> {
    let mut usage = core::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: filled by the call if it succeeds.
    unsafe { (libc::getrusage(who, usage.as_mut_ptr()) == 0).then(|| usage.assume_init()) }
}

/// Bytes of resident memory; 0 if it cannot be told.
pub fn memory_rss() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page).unwrap_or(0)
}

/// The most bytes of resident memory that there ever were, `now` among them.
pub fn memory_max_rss(now: u64) -> u64 {
    // The kernel notes the highest value now and then only.
    usage(libc::RUSAGE_SELF).map_or(now, |usage| now.max(usage.ru_maxrss as u64 * 1024))
}
