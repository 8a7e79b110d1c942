//! The worker: Python serving requests from the wire.
//!
//! | file | what |
//! |---|---|
//! | [`module`] | the Python module `_rwsgi`: `worker()` and `template()` |
//! | [`life`] | from the first line to the exit: configuration, imports, the control loop |
//! | [`host`] | what Python is told of the process: options, services around it |
//! | [`reactor`] | the threads that serve: one edge-triggered epoll set for all |
//! | [`connections`] | who may touch which connection |
//! | [`exchange`] | one request: [`Exchange`](crate::exchange::Exchange) over the wire |
//! | [`outgoing`], [`incoming`] | its response and its body |
//! | [`desk`] | what other threads may do to a thread's request |
//! | [`waiting`] | requests that wait without a thread |
//! | [`limit`] | `maximum-requests` |
//! | [`events`] | what applications are told of signals and of the end |
//! | [`asgi`] | what it decides for event loops |
//! | [`attendant`] | pulse, interrupts, stack dumps |
//! | [`channel`], [`signals`], [`title`], [`socket`] | what the system offers |
//!
//! # Threads
//!
//! The main thread runs imports, then the control loop: it attaches to Python only for exit
//! handlers. `threads` native threads serve. One attendant attaches for the supervisor's wishes, so
//! that a held GIL stops nobody else.

pub mod asgi;
pub mod attendant;
pub mod channel;
pub mod connections;
pub mod desk;
pub mod events;
pub mod exchange;
pub mod host;
pub mod imports;
pub mod incoming;
pub mod life;
pub mod limit;
pub mod module;
pub mod outgoing;
pub mod reactor;
pub mod service;
pub mod signals;
pub mod socket;
pub mod template;
pub mod title;
pub mod waiting;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, PoisonError};

use self::attendant::Wish;
use self::channel::Channel;
use self::connections::{Connections, Held};
use self::desk::Desk;
use self::events::Events;
use self::limit::Limit;
use self::waiting::{Waiting, WaitingRoom};
use crate::daemon::board::Board;
use crate::daemon::control::{FromWorker, Reason};
use crate::daemon::fds;
use crate::daemon::group::GroupConfig;
use crate::daemon::wire::Refused;

/// What epoll reports for the listener; no connection has such a token.
const LISTENER: u64 = u64::MAX;
/// For [`Worker::wake`].
const WAKE: u64 = u64::MAX - 1;
/// For [`Worker::work`].
const WORK: u64 = u64::MAX - 2;

/// Bits of [`Worker::state`]: without any, requests are taken.
const PAUSED: u32 = 1;
const DRAINING: u32 = 2;

/// Something for the serving threads that does not come from epoll.
enum Job {
    /// A request that waited.
    Serve(Waiting),
    /// An event that came at the wrong time.
    Event(u64),
}

/// A worker process. There is one, and it is never freed.
pub struct Worker {
    config: GroupConfig,
    board: Board,
    channel: &'static Channel,
    connections: Connections,
    waiting: WaitingRoom,
    limit: Limit,
    desks: Box<[Desk]>,
    events: Events,
    epoll: OwnedFd,
    /// Readable while serving threads shall look at `state`.
    wake: OwnedFd,
    /// Counts `jobs`.
    work: OwnedFd,
    jobs: Mutex<Vec<Job>>,
    /// Events that came while the worker was paused.
    deferred: Mutex<Vec<u64>>,
    state: AtomicU32,
    paused: Mutex<()>,
    resumed: Condvar,
    /// Serving threads that have not ended.
    serving: AtomicU32,
    /// Wakes the control loop.
    control: OwnedFd,
    /// For the attendant.
    wishes: Mutex<Option<Sender<Wish>>>,
    /// Connections could not be accepted for want of descriptors or memory.
    accept_again: AtomicU32,
    watches_activity: bool,
    /// Seconds until the supervisor loses its patience with what runs in a worker that ends; 0: it
    /// does not.
    patience: AtomicU32,
    /// The whole group ends: `shutdown-timeout` is all that there is.
    is_hasty: AtomicBool,
    peers: [u32; 3],
}

impl Worker {
    /// Makes the worker, paused; its descriptors are those of [`fds`](crate::daemon::fds).
    ///
    /// # Errors
    /// The system's.
    pub fn new(config: GroupConfig, board: Board, channel: &'static Channel) -> io::Result<Worker> {
        let threads = config.threads;
        let limit = match config.maximum_requests {
            0 => 0,
            maximum => u64::from(maximum) + random_up_to(config.max_requests_jitter),
        };
        // SAFETY: no pointers.
        let own = unsafe { libc::geteuid() };
        let worker = Worker {
            board,
            channel,
            connections: Connections::default(),
            waiting: WaitingRoom::default(),
            limit: Limit::new(limit),
            events: Events::default(),
            desks: (0..threads as u16).map(Desk::new).collect(),
            // SAFETY: no pointers; new descriptors are owned by nobody else.
            epoll: unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))? },
            wake: eventfd(0)?,
            work: eventfd(libc::EFD_SEMAPHORE)?,
            jobs: Mutex::default(),
            deferred: Mutex::default(),
            state: AtomicU32::new(PAUSED),
            paused: Mutex::default(),
            resumed: Condvar::new(),
            serving: AtomicU32::new(0),
            control: eventfd(0)?,
            wishes: Mutex::default(),
            accept_again: AtomicU32::new(0),
            watches_activity: config.inactivity_timeout > 0,
            patience: AtomicU32::new(config.graceful_timeout),
            is_hasty: AtomicBool::new(false),
            peers: [0, own, config.peer_uid.unwrap_or(own)],
            config,
        };
        worker.watch(worker.wake.as_raw_fd(), WAKE, 0)?;
        worker.watch(worker.work.as_raw_fd(), WORK, 0)?;
        Ok(worker)
    }

    fn epoll_ctl(&self, operation: i32, fd: i32, token: u64, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: open descriptors and a valid structure.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn watch(&self, fd: i32, token: u64, how: i32) -> io::Result<()> {
        self.epoll_ctl(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN | how)
    }

    /// Events for the connection are reported again, at once if something is there.
    fn arm(&self, held: &Held<'_>) {
        let events = libc::EPOLLIN | libc::EPOLLET;
        let _ = self.epoll_ctl(libc::EPOLL_CTL_MOD, held.fd(), held.token(), events);
    }

    /// Arriving bytes are for the thread that serves the request, and wake no other.
    fn disarm(&self, held: &Held<'_>) {
        let _ = self.epoll_ctl(libc::EPOLL_CTL_MOD, held.fd(), held.token(), libc::EPOLLET);
    }

    /// Makes the peer see the end, and epoll report it.
    fn hang_up(&self, fd: i32) {
        // SAFETY: an open socket.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }

    #[inline]
    fn is_draining(&self) -> bool {
        self.state.load(Ordering::Acquire) & DRAINING != 0
    }

    /// Threads that serve a request, the calling one left out.
    #[inline]
    fn load_without_this(&self) -> u16 {
        let busy = self.board.summary().busy.load(Ordering::Relaxed);
        busy.saturating_sub(1).min(u32::from(u16::MAX)) as u16
    }

    /// Takes requests, for the first time or again.
    pub fn go(&self) -> io::Result<()> {
        if self.is_draining() {
            return Ok(());
        }
        match self.watch(fds::LISTENER, LISTENER, libc::EPOLLET) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => self.limit.extend(),
            Ok(()) => {}
        }
        {
            let _paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            drain_eventfd(self.wake.as_raw_fd());
            self.state.fetch_and(!PAUSED, Ordering::AcqRel);
            self.resumed.notify_all();
        }
        let mut deferred = self.deferred.lock().unwrap_or_else(PoisonError::into_inner);
        for token in deferred.drain(..) {
            self.add_job(Job::Event(token));
        }
        drop(deferred);
        self.serve_again(self.waiting.goes_on());
        Ok(())
    }

    /// Serves requests that waited.
    pub fn serve_again(&self, requests: Vec<Waiting>) {
        for waiting in requests {
            self.add_job(Job::Serve(waiting));
        }
    }

    fn add_job(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push(job);
        signal_eventfd(self.work.as_raw_fd());
    }

    /// Starts no further request until [`go`](Self::go).
    fn pause(&self, reason: Reason) {
        if self.stop_taking(PAUSED) & PAUSED == 0 {
            self.channel.tell(&FromWorker::Paused { reason });
        }
    }

    /// Sets a bit of the state and wakes the serving threads; gives the state before.
    fn stop_taking(&self, bit: u32) -> u32 {
        let _paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.fetch_or(bit, Ordering::AcqRel);
        signal_eventfd(self.wake.as_raw_fd());
        self.resumed.notify_all();
        before
    }

    /// A serving thread has been woken: if there is no reason any more, none shall be woken again.
    fn on_wake(&self) {
        let _paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load(Ordering::Acquire) == 0 {
            drain_eventfd(self.wake.as_raw_fd());
        }
    }

    /// [`Worker::drain`], and applications are told why.
    pub fn leave(&self, reason: Reason) {
        self.events.stopping(reason);
        let config = &self.config;
        let patience = match reason {
            Reason::EvictionSignal if config.eviction_timeout > 0 => config.eviction_timeout,
            _ => config.graceful_timeout,
        };
        self.patience.store(patience, Ordering::Relaxed);
        // Of these httpd and the supervisor wait for little more than exit handlers.
        let hasty = matches!(reason, Reason::ShutdownSignal | Reason::SupervisorGone);
        self.is_hasty.store(hasty, Ordering::Relaxed);
        self.drain();
    }

    /// Starts no further request, for ever: lets the listener go, refuses what waits, and closes
    /// the connections that are idle.
    pub fn drain(&self) {
        self.stop_taking(DRAINING);
        // Others have it, too: connections that come from now on are theirs. (It is not in the set
        // if the worker has never been told to go.)
        let _ = self.epoll_ctl(libc::EPOLL_CTL_DEL, fds::LISTENER, 0, 0);
        self.let_go();
        crate::asgi::loops::drain();
    }

    /// While draining: refuses the requests that wait, and closes the connections that are idle.
    pub fn let_go(&self) {
        let jobs = core::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        let waiting = jobs.into_iter().filter_map(|job| match job {
            Job::Serve(waiting) => Some(waiting),
            Job::Event(_) => None,
        });
        for waiting in waiting.chain(self.waiting.clear()) {
            reactor::refuse(waiting.held, Refused::Draining);
        }
        self.connections.take_idle(reactor::go_away);
    }
}

/// # Safety
/// `fd` is new and owned by nobody, or negative.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by contract.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn eventfd(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor.
    unsafe {
        owned(libc::eventfd(
            0,
            flags | libc::EFD_CLOEXEC | libc::EFD_NONBLOCK,
        ))
    }
}

fn signal_eventfd(fd: i32) {
    let one = 1_u64;
    // SAFETY: eight bytes for an open eventfd. It can only fail when it is readable anyway.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}

/// Whether it was readable.
fn drain_eventfd(fd: i32) -> bool {
    let mut value = 0_u64;
    // SAFETY: eight bytes from an open eventfd.
    let got = unsafe { libc::read(fd, (&raw mut value).cast(), size_of::<u64>()) };
    got > 0
}

/// Runs in every process that is forked off this one by `fork`.
extern "C" fn in_forked_child() {
    if let Some(worker) = life::worker() {
        worker.connections.close_in_forked_child();
        for desk in &worker.desks {
            desk.forget_in_forked_child();
        }
        // SAFETY: of no use to this process; who holds it open keeps others from seeing its end.
        unsafe { libc::close(fds::CONTROL) };
    }
}

fn random_up_to(most: u32) -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: a buffer of that size. Without an answer it stays 0: no jitter.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes) % (u64::from(most) + 1)
}
