//! One request, measured while it runs.
//!
//! A request is observed only while somebody wants it ([`want`]): otherwise [`Observed::begin`] and
//! every other place that would measure is one relaxed load and a branch.
//!
//! The figures of a thread's current request lie in its [`Observation`], which lives for ever and
//! serves one request after another. They are atomics, so that the reporter of telemetry reads
//! them without the GIL while the request runs.
//!
//! The phases are mod_wsgi's:
//!
//! | phase | from | to |
//! |---|---|---|
//! | server | the request arrived at httpd | it was handed to a worker (embedded: the application starts) |
//! | queue | it was handed to a worker | the worker began with it |
//! | daemon | the worker began with it | the application starts: its thread has the GIL |
//! | application | the application starts | its response has been handed on and closed |

use core::cell::Cell;
use core::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Instant;

use super::datagram::ThreadSample;
use super::figures::{Cpu, Figures, Times};
use super::interval::Completed;
use super::slow::{SlowRequest, Texts};
use super::{recorder, thread};
use crate::exchange::{BodyError, RequestHead};
use crate::wsgi::server::clock_us;

/// Who wants requests to be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reader {
    /// Somebody has subscribed to events.
    Events = 1,
    /// Metrics are recorded, or reported to a telemetry service.
    Metrics = 2,
}

/// Bits of [`Reader`].
static WANTED: AtomicU32 = AtomicU32::new(0);

/// Requests are observed from now on, also those that run already (see [`Observed::begin`]).
pub fn want(reader: Reader) {
    WANTED.fetch_or(reader as u32, Ordering::Relaxed);
}

/// Whether anybody wants requests to be observed.
#[inline]
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed) != 0
}

/// Whether `reader` wants requests to be observed.
#[inline]
pub fn is_wanted_by(reader: Reader) -> bool {
    WANTED.load(Ordering::Relaxed) & reader as u32 != 0
}

/// The figures of one thread's current request.
#[derive(Default)]
pub struct Observation {
    number: u32,
    request_start_us: AtomicI64,
    queue_start_us: AtomicI64,
    daemon_start_us: AtomicI64,
    application_start_us: AtomicI64,
    input_reads: AtomicU64,
    input_bytes: AtomicU64,
    input_us: AtomicU64,
    output_writes: AtomicU64,
    output_bytes: AtomicU64,
    output_us: AtomicU64,
    gil_waits: AtomicU64,
    gil_wait_us: AtomicU64,
    status: AtomicU16,
    slot: Mutex<Slot>,
}

/// What the reader of metrics takes from a thread, and whose beginning and end are one step.
#[derive(Default)]
struct Slot {
    active: Option<Active>,
    /// Of the requests that have ended since the last reading; `busy_us` counts also what runs.
    interval: ThreadSample,
    /// How long the thread has been serving, ever, up to the last reading or end.
    busy_us: u64,
    /// Requests that it has served.
    requests: u64,
}

/// A request that runs.
struct Active {
    /// Valid while this is in its slot: taken out under the slot's lock before the head goes.
    head: *const RequestHead<'static>,
    /// When it began here, microseconds since the epoch.
    start_us: i64,
    /// The part of it since then has not been counted as busy.
    busy_since_us: i64,
    /// What its thread had used of the processor when it began.
    cpu: Cpu,
    /// Requests of the process then, this one among them.
    active_at_start: u32,
}

// SAFETY: the head is only read, under the slot's lock, and is plain borrowed bytes.
unsafe impl Send for Active {}

impl Active {
    /// What was asked.
    fn head(&self) -> &RequestHead<'_> {
        // SAFETY: see the field; the result borrows what is in the slot, whose lock is held.
        unsafe { &*self.head }
    }
}

impl Slot {
    /// Counts what a running request has taken up to `now`.
    fn note_busy(&mut self, now: i64) {
        if let Some(active) = &mut self.active {
            let busy = elapsed(active.busy_since_us, now);
            active.busy_since_us = now;
            self.interval.busy_us += busy;
            self.busy_us += busy;
        }
    }
}

fn elapsed(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

/// What a thread has done, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// `mod_wsgi.thread_id`.
    pub thread_id: u32,
    /// Requests that it has served.
    pub requests: u64,
    /// How long it has been serving, microseconds.
    pub busy_us: u64,
}

thread_local! {
    /// The observation of the request that this thread serves, while it is observed.
    static CURRENT: Cell<Option<&'static Observation>> = const { Cell::new(None) };
}

/// All that there are; that of thread `n` is at `n - 1`.
static ALL: RwLock<Vec<&'static Observation>> = RwLock::new(Vec::new());

/// The observation of every thread that has served an observed request.
pub(super) fn all() -> Vec<&'static Observation> {
    ALL.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The same for a thread that must not wait: none if it would have to.
pub(super) fn all_without_waiting() -> Vec<&'static Observation> {
    ALL.try_read().map(|all| all.clone()).unwrap_or_default()
}

/// The observation of what the calling thread serves or has served last.
pub fn of_this_thread() -> &'static Observation {
    let number = thread::number();
    let index = number as usize - 1;
    let known = ALL.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(&observation) = known.get(index) {
        return observation;
    }
    drop(known);
    let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
    while all.len() <= index {
        let observation = Observation {
            number: all.len() as u32 + 1,
            ..Observation::default()
        };
        all.push(Box::leak(Box::new(observation)));
    }
    all[index]
}

/// Runs `acquire`, which waits for the GIL, and counts that for the request of this thread.
#[cold]
pub fn waits_for_gil(acquire: impl FnOnce()) {
    let started = Instant::now();
    acquire();
    if let Some(observation) = CURRENT.get() {
        observation.note_gil_wait(started);
    }
}

impl Observation {
    /// `mod_wsgi.thread_id`.
    pub fn thread_id(&self) -> u32 {
        self.number
    }

    /// When the phases began.
    pub fn times(&self) -> Times {
        let read = |time: &AtomicI64| time.load(Ordering::Relaxed);
        Times {
            request_start_us: read(&self.request_start_us),
            queue_start_us: read(&self.queue_start_us),
            daemon_start_us: read(&self.daemon_start_us),
            application_start_us: read(&self.application_start_us),
        }
    }

    /// What the request has done so far.
    pub fn figures(&self) -> Figures {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Figures {
            input_reads: read(&self.input_reads),
            input_bytes: read(&self.input_bytes),
            input_us: read(&self.input_us),
            output_writes: read(&self.output_writes),
            output_bytes: read(&self.output_bytes),
            output_us: read(&self.output_us),
            gil_waits: read(&self.gil_waits),
            gil_wait_us: read(&self.gil_wait_us),
        }
    }

    /// What the calling thread, the one that serves the request, has used of the processor since
    /// the request began.
    pub fn cpu(&self) -> Cpu {
        let before = self.slot().active.as_ref().map(|active| active.cpu);
        Cpu::of_this_thread().since(before.unwrap_or_default())
    }

    /// The application starts at `now_us`, microseconds since the epoch: the thread has the GIL, and
    /// had waited for it since `waits_since`, if that is known.
    pub fn note_application_start(&self, now_us: i64, waits_since: Option<Instant>) {
        self.application_start_us.store(now_us, Ordering::Relaxed);
        if let Some(since) = waits_since {
            self.note_gil_wait(since);
        }
    }

    fn note_gil_wait(&self, since: Instant) {
        self.gil_waits.fetch_add(1, Ordering::Relaxed);
        self.gil_wait_us
            .fetch_add(microseconds(since), Ordering::Relaxed);
    }

    /// A read of the body from the server.
    pub fn reads(
        &self,
        read: impl FnOnce() -> Result<usize, BodyError>,
    ) -> Result<usize, BodyError> {
        let started = Instant::now();
        let result = read();
        if result != Err(BodyError::WouldBlock) {
            self.input_reads.fetch_add(1, Ordering::Relaxed);
            self.input_us
                .fetch_add(microseconds(started), Ordering::Relaxed);
        }
        result
    }

    /// The application was given so much of the body.
    pub fn note_input(&self, bytes: usize) {
        self.input_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something of the response is handed on.
    pub fn sends<R>(&self, send: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = send();
        self.output_us
            .fetch_add(microseconds(started), Ordering::Relaxed);
        result
    }

    /// The application has given a block of the response.
    pub fn note_output(&self, bytes: u64) {
        self.output_writes.fetch_add(1, Ordering::Relaxed);
        self.output_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The status of the response, as far as it is known.
    pub fn note_status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The status of the response; 0 if it is not known.
    pub fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&'static self, head: &RequestHead<'_>) {
        for (time, value) in [
            (&self.request_start_us, head.request_time_us),
            (&self.queue_start_us, head.accept_time_us),
            (&self.daemon_start_us, head.daemon_time_us),
            (&self.application_start_us, 0),
        ] {
            time.store(value, Ordering::Relaxed);
        }
        for figure in [
            &self.input_reads,
            &self.input_bytes,
            &self.input_us,
            &self.output_writes,
            &self.output_bytes,
            &self.output_us,
            &self.gil_waits,
            &self.gil_wait_us,
        ] {
            figure.store(0, Ordering::Relaxed);
        }
        self.status.store(0, Ordering::Relaxed);
        let now = clock_us();
        self.slot().active = Some(Active {
            head: core::ptr::from_ref(head).cast(),
            start_us: now,
            busy_since_us: now,
            cpu: Cpu::of_this_thread(),
            active_at_start: recorder::enter(),
        });
        CURRENT.set(Some(self));
    }

    /// The request is over. Its head may go afterwards.
    fn end(&self) {
        CURRENT.set(None);
        let now = clock_us();
        let durations = self.times().durations(now);
        let (figures, status) = (self.figures(), self.status());
        let mut slot = self.slot();
        slot.note_busy(now);
        let Some(active) = slot.active.take() else {
            return;
        };
        let active_at_completion = recorder::leave();
        let duration_us = elapsed(active.start_us, now);
        let cpu = Cpu::of_this_thread().since(active.cpu);
        slot.requests += 1;
        let interval = &mut slot.interval;
        interval.completed += 1;
        interval.cpu_us += cpu.total_us();
        interval.longest_us = interval.longest_us.max(duration_us);
        let slow = is_slow(duration_us).then(|| SlowRequest {
            completed: true,
            duration_us,
            durations,
            figures,
            status,
            cpu,
            active_at_completion,
            ..self.slow_request(&active)
        });
        // A reader locks the other way round.
        drop(slot);
        let completed = Completed {
            durations,
            figures,
            status,
        };
        recorder::completed(&completed, slow);
    }

    /// The request was not served here.
    fn forget(&self) {
        CURRENT.set(None);
        if self.slot().active.take().is_some() {
            recorder::leave();
        }
    }

    fn slow_request(&self, active: &Active) -> SlowRequest {
        SlowRequest {
            start_us: active.start_us,
            thread_id: self.number,
            server_pid: active.head().server_pid,
            active_at_start: active.active_at_start,
            texts: Texts::of(active.head(), recorder::with_user_agent()),
            ..SlowRequest::default()
        }
    }

    /// The request that runs now, if it has been running for long.
    pub(super) fn slow_active(&self, now: i64) -> Option<SlowRequest> {
        let slot = self.slot();
        let active = slot.active.as_ref()?;
        let duration_us = elapsed(active.start_us, now);
        is_slow(duration_us).then(|| SlowRequest {
            duration_us,
            durations: self.times().durations(now),
            figures: self.figures(),
            ..self.slow_request(active)
        })
    }

    /// What the thread has done since the last call; `None` if it has never served an observed
    /// request, or if the calling thread must not wait and would have to.
    pub(super) fn take_interval(&self, now: i64, may_wait: bool) -> Option<ThreadSample> {
        let mut slot = match self.slot.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if may_wait => self.slot(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if slot.active.is_none() && slot.requests == 0 {
            return None;
        }
        slot.note_busy(now);
        let current_us = slot
            .active
            .as_ref()
            .map_or(0, |active| elapsed(active.start_us, now).max(1));
        let taken = core::mem::take(&mut slot.interval);
        Some(ThreadSample {
            current_us,
            ..taken
        })
    }

    /// What the thread has done, ever; `None` if it has never served an observed request.
    pub(super) fn lifetime(&self, now: i64) -> Option<Lifetime> {
        let mut slot = self.slot();
        slot.note_busy(now);
        (slot.active.is_some() || slot.requests > 0).then_some(Lifetime {
            thread_id: self.number,
            requests: slot.requests,
            busy_us: slot.busy_us,
        })
    }
}

/// Whether a request of that duration is told of.
fn is_slow(duration_us: u64) -> bool {
    let least = recorder::slow_us();
    least > 0 && duration_us >= least
}

fn microseconds(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// The place of a request's observation, on the stack of the thread that serves it.
pub struct Observed<'a> {
    head: &'a RequestHead<'a>,
    observation: Cell<Option<&'static Observation>>,
}

impl<'a> Observed<'a> {
    /// The calling thread will serve the request.
    #[inline]
    pub fn new(head: &'a RequestHead<'a>) -> Self {
        Observed {
            head,
            observation: Cell::new(None),
        }
    }

    /// Begins to observe the request, if somebody wants it, and gives its observation. May be
    /// called again: somebody may have begun to want it while the script was loaded.
    #[inline]
    pub fn begin(&self) -> Option<&'static Observation> {
        if is_wanted() { self.begin_now() } else { None }
    }

    #[cold]
    fn begin_now(&self) -> Option<&'static Observation> {
        if self.observation.get().is_none() {
            let observation = of_this_thread();
            observation.begin(self.head);
            self.observation.set(Some(observation));
        }
        self.observation.get()
    }

    /// The observation, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&'static Observation> {
        self.observation.get()
    }

    /// The request was not served here: it does not count.
    pub fn forget(&self) {
        if let Some(observation) = self.observation.take() {
            observation.forget();
        }
    }
}

impl Drop for Observed<'_> {
    /// The request is over.
    #[inline]
    fn drop(&mut self) {
        if let Some(observation) = self.observation.get() {
            observation.end();
        }
    }
}
