//! The thread of an application group that serves ASGI, and its connections.
//!
//! | file | what |
//! |---|---|
//! | here | the loop as other threads see it: connections and wishes for it come through its inbox |
//! | [`python`] | its Python side, and the thread |
//! | [`connections`] | what is ready in the epoll set |
//! | [`requests`] | what is in hand |
//! | [`time`] | what takes long |
//! | [`draining`] | its end |

mod connections;
mod draining;
mod python;
mod requests;
mod time;

pub use python::PythonLoop;

use core::cell::{Cell, OnceCell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::asgi::application::{self, Application};
use crate::asgi::awaitable::Endpoint;
use crate::asgi::house::House;
use crate::asgi::link::Link;
use crate::asgi::log;
use crate::daemon::control;
use crate::exchange::Level;
use crate::python::interpreter::Interpreter;
use crate::python::slots::boundary;

/// What epoll reports for [`EventLoop::wake`]; no connection has such a token.
const WAKE: u64 = u64::MAX;
/// For the timer.
const TICK: u64 = u64::MAX - 1;
/// Events that are taken at once.
const EVENTS: usize = 128;
/// How often is looked at what takes its time.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// What is read at once.
pub const BUFFER: usize = 64 * 1024;

/// What other threads may ask of a loop.
enum Message {
    /// Serve what comes over this connection; a first request may have come.
    Adopt(OwnedFd, Vec<u8>),
    /// Begin the startup of an application.
    Begin(control::Application, Sender<application::Problem>),
    /// Log for the request of that connection.
    Log(u64, Level, Vec<u8>),
}
/// What has come and has not been taken.
#[derive(Default)]
struct Inbox {
    messages: Vec<Message>,
    /// The loop has ended: nobody takes anything any more.
    closed: bool,
}

/// A loop. Lives until the process ends (it is leaked on purpose).
pub struct EventLoop {
    /// Whose applications it runs.
    pub interpreter: &'static Interpreter,
    /// What the process decides.
    pub house: &'static dyn House,
    epoll: OwnedFd,
    wake: OwnedFd,
    timer: OwnedFd,
    inbox: Mutex<Inbox>,
    thread: AtomicUsize,
    python_thread: AtomicU64,
    drains: AtomicBool,
    hurries: AtomicBool,
    /// HTTP requests and WebSockets in hand.
    pub active: AtomicU32,
    /// When the loop last showed that it goes round, while it has something to do.
    pub beat_ms: AtomicU64,
    /// The beat after which somebody was told that it does not.
    pub told_stuck: AtomicU64,
    ended: Mutex<bool>,
    has_ended: Condvar,
    inner: Inner,
}

/// What the loop's thread alone touches.
struct Inner {
    python: OnceCell<PythonLoop>,
    links: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    applications: RefCell<Vec<Arc<Application>>>,
    buffer: RefCell<Vec<u8>>,
    /// What is in hand, and places there that are free.
    running: RefCell<Vec<Option<Endpoint>>>,
    unused: RefCell<Vec<u32>>,
    /// HTTP requests in hand.
    requests: Cell<u32>,
    /// Connections with a request that is not read because there are enough in hand.
    postponed: RefCell<VecDeque<u64>>,
    /// Connections that are to be looked at again.
    again: RefCell<Vec<u64>>,
    ticks: Cell<bool>,
    /// When what is still in hand is ended by force.
    deadline: Cell<Option<Instant>>,
    forced: Cell<bool>,
    shutting_down: Cell<bool>,
    stopped: Cell<bool>,
}

struct Place {
    generation: u32,
    link: Option<Rc<Link>>,
}

// SAFETY: `inner` is touched by the loop's own thread only (`thread`), by every function's contract;
// the rest is synchronised.
unsafe impl Sync for EventLoop {}
// SAFETY: as above.
unsafe impl Send for EventLoop {}

/// # Safety
/// `fd` is new and owned by nobody, or negative.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by contract.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl EventLoop {
    /// Makes a loop and starts its thread. The calling thread is not attached.
    ///
    /// # Errors
    /// The system's.
    pub fn start(
        interpreter: &'static Interpreter,
        house: &'static dyn House,
    ) -> io::Result<&'static EventLoop> {
        // SAFETY: no pointers; new descriptors are owned by nobody else.
        let event_loop = unsafe {
            EventLoop {
                interpreter,
                house,
                epoll: owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                wake: owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?,
                timer: owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
                ))?,
                inbox: Mutex::default(),
                thread: AtomicUsize::new(0),
                python_thread: AtomicU64::new(0),
                drains: AtomicBool::new(false),
                hurries: AtomicBool::new(false),
                active: AtomicU32::new(0),
                beat_ms: AtomicU64::new(0),
                told_stuck: AtomicU64::new(0),
                ended: Mutex::new(false),
                has_ended: Condvar::new(),
                inner: Inner {
                    python: OnceCell::new(),
                    links: RefCell::default(),
                    free: RefCell::default(),
                    applications: RefCell::default(),
                    buffer: RefCell::new(vec![0; BUFFER]),
                    running: RefCell::default(),
                    unused: RefCell::default(),
                    requests: Cell::new(0),
                    postponed: RefCell::default(),
                    again: RefCell::default(),
                    ticks: Cell::new(false),
                    deadline: Cell::new(None),
                    forced: Cell::new(false),
                    shutting_down: Cell::new(false),
                    stopped: Cell::new(false),
                },
            }
        };
        for (fd, token) in [(&event_loop.wake, WAKE), (&event_loop.timer, TICK)] {
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: token,
            };
            // SAFETY: open descriptors and a valid structure.
            let result = unsafe {
                libc::epoll_ctl(
                    event_loop.epoll.as_raw_fd(),
                    libc::EPOLL_CTL_ADD,
                    fd.as_raw_fd(),
                    &mut event,
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let event_loop: &'static EventLoop = Box::leak(Box::new(event_loop));
        log::want();
        house.loop_began();
        let run = move || {
            block_signals();
            boundary(|| (), || event_loop.run());
            event_loop.leave();
        };
        let started = std::thread::Builder::new()
            .name("rwsgi-loop".to_owned())
            .stack_size(crate::python::threads::default_stack_size())
            .spawn(run);
        if let Err(error) = started {
            house.loop_ended();
            return Err(error);
        }
        Ok(event_loop)
    }

    /// The loop's thread, as [`this_thread`](crate::python::request::this_thread) numbers it.
    #[inline]
    pub fn thread(&self) -> usize {
        self.thread.load(Ordering::Relaxed)
    }

    /// The same, as Python names it.
    pub fn python_thread(&self) -> u64 {
        self.python_thread.load(Ordering::Relaxed)
    }

    // ---- for other threads -----------------------------------------------------------------

    /// Serves what comes over a connection; `frame` is a whole request that has come already, or
    /// nothing. Any thread.
    pub fn adopt(&self, socket: OwnedFd, frame: Vec<u8>) {
        self.tell(Message::Adopt(socket, frame));
    }

    /// Begins the startup of an application whose script has been loaded; `tell` gets what becomes
    /// of it, and is dropped if there is no such application. Any thread.
    pub fn begin_application(
        &self,
        application: control::Application,
        tell: Sender<application::Problem>,
    ) {
        self.tell(Message::Begin(application, tell));
    }

    /// Logs for the request of a connection. Any thread but the loop's.
    pub fn log_from_elsewhere(&self, token: u64, level: Level, line: Vec<u8>) {
        self.tell(Message::Log(token, level, line));
    }

    fn tell(&self, message: Message) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.closed {
            // A connection is closed then, and its peer sees that.
            return;
        }
        inbox.messages.push(message);
        drop(inbox);
        self.signal();
    }

    pub(super) fn signal(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes for an open eventfd. It can only fail when it is readable anyway.
        unsafe {
            libc::write(
                self.wake.as_raw_fd(),
                (&raw const one).cast(),
                size_of::<u64>(),
            )
        };
    }

    /// Ends the loop when what is in hand is done, or after a bound. Any thread.
    pub fn drain(&self) {
        self.drains.store(true, Ordering::Release);
        self.signal();
    }

    /// The same, without waiting for what is in hand. Any thread.
    pub fn hurry(&self) {
        self.hurries.store(true, Ordering::Release);
        self.drain();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in_a_hurry(&self) -> bool {
        self.hurries.load(Ordering::Acquire)
    }

    /// Whether it is to end.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.drains.load(Ordering::Acquire)
    }

    /// Waits until the thread has ended; whether it has. Any thread that is not attached.
    pub fn wait_for_end(&self, longest: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .has_ended
            .wait_timeout_while(ended, longest, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        *ended
    }

    fn leave(&self) {
        self.house.loop_ended();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.has_ended.notify_all();
    }

    /// Closes what a process that has been forked off has no use for.
    pub fn close_in_forked_child(&self) {
        // SAFETY: the fork may have come at any time, but only descriptors are closed here, which
        // are plain numbers. Nothing else of the loop is used in that process.
        unsafe {
            libc::close(self.epoll.as_raw_fd());
            libc::close(self.wake.as_raw_fd());
        }
    }
}

/// Signals are for the server's own threads.
fn block_signals() {
    // SAFETY: a set is filled and used.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
            libc::sigdelset(&mut all, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, core::ptr::null_mut());
    }
}
