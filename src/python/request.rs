//! What the request of a thread means to the Python layer: where its log lines go, and who may use
//! its exchange.
//!
//! An application may hand `wsgi.input` or `wsgi.errors` to threads of its own. A [`Lease`] lets
//! one thread at a time use the exchange, and lets the request end only when no other is using it.

use core::cell::{Cell, RefCell};
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use pyo3::ffi;

use super::attach::Attached;
use super::object::Owned;
use super::raise::{Kind, Result, raise};
use super::running::Links;
use crate::exchange::{Exchange, Level, Opt, Source};

thread_local! {
    static CURRENT: Cell<*const RequestCore> = const { Cell::new(core::ptr::null()) };
    static WATCH: Cell<Option<&'static Watch>> = const { Cell::new(None) };
    /// Something with one address per thread.
    static THREAD: u8 = const { 0 };
}

/// A number that no other living thread has.
pub fn this_thread() -> usize {
    THREAD.with(|mark| core::ptr::from_ref(mark) as usize)
}

/// The request that a thread serves. Lives on that thread's stack from before its application is
/// called until after; `end` makes sure that nobody uses it any more.
pub struct RequestCore {
    /// Valid while the core lives: [`RequestCore::new`] takes care.
    exchange: *const dyn Exchange,
    owner: usize,
    /// What the thread served before: sending a response may run other requests (subrequests of
    /// filters) on the same thread.
    outer: Cell<*const RequestCore>,
    lease: Lease,
    /// A line of log text that has no end yet. Touched only while attached, never across a detach.
    pub(super) line: RefCell<Vec<u8>>,
    /// `mod_wsgi.request_id`; valid while the core is listed.
    id: Cell<Opt<'static>>,
    /// What `request_data()` gives, made when it is first asked for. Dropped with the core, attached.
    data: OnceLock<Owned>,
    /// Its place among the running requests of its interpreter.
    pub(super) links: Links,
}

impl RequestCore {
    /// Serves a request on the calling thread.
    ///
    /// # Safety
    /// `exchange` outlives the core.
    pub unsafe fn new(exchange: &dyn Exchange) -> Self {
        // SAFETY: only the lifetime changes; the caller promises that it is long enough.
        let exchange = unsafe {
            core::mem::transmute::<*const (dyn Exchange + '_), *const (dyn Exchange + 'static)>(
                core::ptr::from_ref(exchange),
            )
        };
        RequestCore {
            exchange,
            owner: this_thread(),
            outer: Cell::new(core::ptr::null()),
            lease: Lease::default(),
            line: RefCell::default(),
            id: Cell::new(Opt::NONE),
            data: OnceLock::new(),
            links: Links::default(),
        }
    }

    /// Lists the request among the running ones of the interpreter, under its `mod_wsgi.request_id`.
    ///
    /// # Safety
    /// `id` outlives the core, which is not moved until [`RequestCore::leave`] has returned.
    #[inline]
    pub unsafe fn list(&self, py: Attached, id: Opt<'_>) {
        // SAFETY: only the lifetime changes; the caller promises that it is long enough.
        self.id
            .set(unsafe { core::mem::transmute::<Opt<'_>, Opt<'static>>(id) });
        // SAFETY: `leave` takes it off the list.
        unsafe { py.interpreter().running.add(py, self) };
    }

    /// `mod_wsgi.request_id`, if the server has made one.
    pub fn id(&self) -> Option<&[u8]> {
        self.id.get().bytes()
    }

    /// The dictionary that `request_data()` gives.
    pub fn data(&self, py: Attached) -> Result<Owned> {
        if let Some(data) = self.data.get() {
            return Ok(data.clone_ref(py));
        }
        // SAFETY: attached. Making it may run finalizers, which may come here as well: the first
        // one stays.
        let made = unsafe { Owned::from_new(ffi::PyDict_New())? };
        Ok(self.data.get_or_init(|| made).clone_ref(py))
    }

    /// Makes it the current request of this thread: `sys.stderr` follows it.
    pub fn enter(&self) {
        self.outer
            .set(CURRENT.with(|current| current.replace(self)));
        if let Some(watch) = WATCH.get() {
            watch.inside.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until no other thread uses the exchange. The caller has cleared every pointer to the
    /// core from the objects that the application was given, so no thread can begin to.
    pub fn leave(&self, py: Attached) {
        if let Some(watch) = WATCH.get() {
            watch.inside.store(false, Ordering::Relaxed);
            if watch.interrupted.swap(false, Ordering::Relaxed) {
                watch.forget(py);
            }
        }
        self.links.remove(py, self);
        CURRENT.with(|current| current.set(self.outer.get()));
        super::log::flush_request(py, self);
        if self.lease.shared.load(Ordering::Acquire) {
            py.detached(|_| self.lease.wait_until_unused());
        }
    }

    /// The right to use the exchange.
    ///
    /// # Errors
    /// Raises RuntimeError if the request ended while the calling thread waited.
    pub fn exchange(&self, py: Attached) -> Result<Leased<'_>> {
        let foreign = this_thread() != self.owner;
        if foreign {
            self.lease.add_user();
        }
        if !self.lease.try_take() {
            py.detached(|_| self.lease.take());
        }
        let leased = Leased {
            core: self,
            foreign,
        };
        if self.lease.ended.load(Ordering::Acquire) {
            drop(leased);
            return Err(raise(py, Kind::Runtime, "the request has ended"));
        }
        Ok(leased)
    }

    /// No thread shall begin to use the exchange from now on.
    pub fn end(&self) {
        self.lease.ended.store(true, Ordering::Release);
    }

    /// Logs a line for this request. Call it detached: a log may be a pipe that is full.
    pub fn log(&self, level: Level, line: &[u8]) {
        let foreign = this_thread() != self.owner || self.lease.held.load(Ordering::Acquire);
        // SAFETY: the exchange outlives the core, and whoever has a reference to the core is the
        // owner or counted as a user.
        unsafe { (*self.exchange).log(level, foreign, line) }
    }

    /// [`RequestCore::log`] for a message that says where it was made.
    pub fn log_from(&self, level: Level, source: Source<'_>, line: &[u8]) {
        let foreign = this_thread() != self.owner || self.lease.held.load(Ordering::Acquire);
        // SAFETY: as in `log`.
        unsafe { (*self.exchange).log_from(level, foreign, source, line) }
    }

    /// Whether lines of this level are logged for the request.
    pub fn logs(&self, level: Level) -> bool {
        let foreign = this_thread() != self.owner || self.lease.held.load(Ordering::Acquire);
        // SAFETY: as in `log`.
        unsafe { (*self.exchange).logs(level, foreign) }
    }

    /// Keeps the core alive for a thread that logs, or runs Python code of others, and may be
    /// detached meanwhile. The thread that serves the request keeps it anyway.
    pub fn keep(&self) -> Option<Kept<'_>> {
        (this_thread() != self.owner).then(|| {
            self.lease.add_user();
            Kept(self)
        })
    }
}

/// Lets another thread interrupt the requests that a thread serves. Its flags change only while
/// attached, so the GIL orders them.
#[derive(Default)]
pub struct Watch {
    /// The thread, as Python names it; 0 until there is one.
    thread: AtomicU64,
    /// It is inside a request.
    inside: AtomicBool,
    /// An exception has been raised in it from outside, which may not have arrived yet.
    interrupted: AtomicBool,
}

impl Watch {
    /// The calling thread is watched from now on.
    pub fn attend(&'static self) {
        // SAFETY: no arguments. Python's number of a thread is this on every POSIX system.
        let thread = unsafe { libc::pthread_self() };
        self.thread.store(thread as u64, Ordering::Relaxed);
        WATCH.set(Some(self));
    }

    /// The thread, as Python names it.
    pub fn thread(&self) -> u64 {
        self.thread.load(Ordering::Relaxed)
    }

    /// Whether the thread is inside a request.
    pub fn is_inside(&self, _: Attached) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Raises an exception of `class` in the thread as soon as it runs Python code. The caller is
    /// attached to the interpreter where the thread is inside a request. Whether it worked.
    pub fn interrupt(&self, py: Attached, class: &Owned) -> bool {
        if !self.is_inside(py) {
            return false;
        }
        // SAFETY: attached; a live class, of which Python takes a reference of its own.
        let count = unsafe {
            ffi::PyThreadState_SetAsyncExc(self.thread() as core::ffi::c_long, class.as_ptr())
        };
        self.interrupted.store(count > 0, Ordering::Relaxed);
        count > 0
    }

    /// What has not arrived shall not hit the thread's next request.
    #[cold]
    fn forget(&self, _: Attached) {
        // SAFETY: attached; null takes back what has not been raised.
        unsafe {
            ffi::PyThreadState_SetAsyncExc(
                self.thread() as core::ffi::c_long,
                core::ptr::null_mut(),
            );
        }
    }
}

/// The core of the request that this thread serves, if it serves one.
///
/// # Safety
/// The reference must not outlive the attached period in which it was got, except for the thread
/// that owns the request.
pub unsafe fn current<'a>() -> Option<&'a RequestCore> {
    // SAFETY: set by `enter` and cleared by `leave` on this very thread.
    CURRENT.with(|current| unsafe { current.get().as_ref() })
}

/// A thread other than that which serves the request uses it.
pub struct Kept<'a>(&'a RequestCore);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.lease.give_back(false, true);
    }
}

/// The exchange, for as long as this lives.
pub struct Leased<'a> {
    core: &'a RequestCore,
    foreign: bool,
}

impl Deref for Leased<'_> {
    type Target = dyn Exchange;

    fn deref(&self) -> &Self::Target {
        // SAFETY: outlives the core (contract of `RequestCore::new`), which this borrows.
        unsafe { &*self.core.exchange }
    }
}

impl Drop for Leased<'_> {
    #[inline]
    fn drop(&mut self) {
        let lease = &self.core.lease;
        if self.foreign || lease.waiting.load(Ordering::SeqCst) > 0 {
            lease.give_back(true, self.foreign);
            return;
        }
        lease.held.store(false, Ordering::SeqCst);
        // A thread that began to wait between the two lines has seen `held` cleared, or is seen
        // here and told.
        if lease.waiting.load(Ordering::SeqCst) > 0 {
            lease.give_back(false, false);
        }
    }
}

#[derive(Default)]
struct Lease {
    held: AtomicBool,
    ended: AtomicBool,
    /// Threads other than the owner that use the core or wait for the lease.
    users: AtomicU32,
    /// Whether there ever was one.
    shared: AtomicBool,
    /// Threads that wait for the lease.
    waiting: AtomicU32,
    mutex: Mutex<()>,
    changed: Condvar,
}

impl Lease {
    #[cold]
    fn add_user(&self) {
        self.shared.store(true, Ordering::Release);
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    #[inline]
    fn try_take(&self) -> bool {
        self.held
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    #[cold]
    fn take(&self) {
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while !self.try_take() {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    #[cold]
    fn give_back(&self, held: bool, user: bool) {
        // Under the mutex, so that the owner cannot end the request before we are done with it.
        let _guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        if held {
            self.held.store(false, Ordering::SeqCst);
        }
        if user {
            self.users.fetch_sub(1, Ordering::AcqRel);
        }
        self.changed.notify_all();
    }

    #[cold]
    fn wait_until_unused(&self) {
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        while self.users.load(Ordering::Acquire) > 0 {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
