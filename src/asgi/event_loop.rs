//! The thread of an application group that serves ASGI, and its connections.

use core::cell::{Cell, OnceCell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::application::Application;
use super::house::House;
use super::http::{Cancelled, Http};
use super::link::{Link, Phase, Sent};
use super::websocket::Session;
use super::{awaitable, log};
use crate::daemon::wire::{Kind, flag};
use crate::exchange::{Level, Source};
use crate::messages;
use crate::python::attach::{self, Attached};
use crate::python::interpreter::Interpreter;
use crate::python::object::{Owned, boolean, float, int};
use crate::python::order;
use crate::python::raise::{Kind as Raise, Raised, Result, raise};
use crate::python::slots::{self, Methods, boundary, object_slot};

/// What epoll reports for [`EventLoop::wake`]; no connection has such a token.
const WAKE: u64 = u64::MAX;
/// For the timer.
const TICK: u64 = u64::MAX - 1;
/// Events that are taken at once.
const EVENTS: usize = 128;
/// How often is looked at what takes its time.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How long a cancelled task may go on.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// What is read at once.
pub const BUFFER: usize = 64 * 1024;

/// What other threads may ask of a loop.
enum Message {
    /// Serve what comes over this connection; a first request may have come.
    Adopt(OwnedFd, Vec<u8>),
    /// Log for the request of that connection.
    Log(u64, Level, Vec<u8>),
}

/// What Python knows of the loop.
pub struct PythonLoop {
    /// The event loop.
    pub event_loop: Owned,
    /// `asyncio.Task`.
    pub task_class: Owned,
    /// Its keyword arguments.
    pub task_options: Owned,
    create_future: Owned,
    /// What is `loop.call_soon` while a task is being made, and what it has caught.
    #[cfg(not(Py_3_12))]
    pub catcher: Owned,
    /// See above: a callable and its context.
    #[cfg(not(Py_3_12))]
    pub caught: Cell<Option<(Owned, Owned)>>,
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
    inbox: Mutex<Vec<Message>>,
    thread: AtomicUsize,
    python_thread: AtomicU64,
    drains: AtomicBool,
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

    /// Logs for the request of a connection. Any thread but the loop's.
    pub fn log_from_elsewhere(&self, token: u64, level: Level, line: Vec<u8>) {
        self.tell(Message::Log(token, level, line));
    }

    fn tell(&self, message: Message) {
        self.inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
        self.signal();
    }

    fn signal(&self) {
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

    // ---- the thread ------------------------------------------------------------------------

    fn run(&'static self) {
        self.thread
            .store(crate::python::request::this_thread(), Ordering::Relaxed);
        // SAFETY: no arguments.
        let thread = unsafe { libc::pthread_self() };
        self.python_thread.store(thread as u64, Ordering::Relaxed);
        let guard = attach::attach(self.interpreter);
        let py = guard.token();
        if let Err(raised) = self.run_attached(py) {
            let exception = raised.take(py);
            let code = messages::ASGI_LOOP_FAILED;
            let what = "the event loop of an application group has failed";
            crate::python::exceptions::log_for_process(py, code, what, &exception);
            drop(exception);
        }
        // Whatever is left: httpd must not wait for it.
        self.inner.stopped.set(true);
        for place in self.inner.links.take() {
            if let Some(link) = place.link {
                link.close();
                let phase = core::mem::replace(&mut *link.phase.borrow_mut(), Phase::Idle);
                match phase {
                    Phase::Idle => {}
                    Phase::Http(http) => http.on_gone(py),
                    Phase::WebSocket(session) => session.on_gone(py),
                }
            }
        }
        self.inner.applications.take();
        self.inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn run_attached(&'static self, py: Attached) -> Result<()> {
        let options = crate::python::runtime::runtime().map(|runtime| &runtime.options);
        let uvloop = options.is_some_and(|options| options.uvloop);
        let state = py.interpreter().build_asgi(py)?;
        let made = state.call(py, c"new_loop", [boolean(py, uvloop)])?;
        // SAFETY: a tuple of two, as `loop.py` has it.
        let (event_loop, problem) = unsafe {
            (
                Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(made.as_ptr(), 0)),
                Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(made.as_ptr(), 1)),
            )
        };
        // SAFETY: attached.
        if problem.as_ptr() != unsafe { ffi::Py_None() } {
            // SAFETY: a live object.
            let text = unsafe { crate::python::object::latin1_bytes(py, problem.as_ptr()) };
            let text = text.map_or_else(
                |raised| {
                    raised.clear(py);
                    String::new()
                },
                |text| String::from_utf8_lossy(text).into_owned(),
            );
            let line = format!(
                "{}uvloop cannot be used ({text}); asyncio's own event loop serves instead: install \
                 uvloop in the application's environment, or configure asyncio",
                messages::ASGI_NO_UVLOOP
            );
            self.house.log(Level::Warning, line.as_bytes());
        }
        let python = self.python_loop(py, event_loop)?;
        let event_loop = python.event_loop.clone_ref(py);
        let _ = self.inner.python.set(python);
        let ready = self.function(py, &READY)?;
        let log = self.function(py, &LOG)?;
        let descriptor = int(py, self.epoll.as_raw_fd().into())?;
        drop(state.call(
            py,
            c"run",
            [event_loop.clone_ref(py), descriptor, ready, log],
        )?);
        let seconds = float(py, self.house.bounds().shutdown.as_secs_f64().min(1e6))?;
        drop(state.call(py, c"finish", [event_loop, seconds])?);
        Ok(())
    }

    fn python_loop(&'static self, py: Attached, event_loop: Owned) -> Result<PythonLoop> {
        // SAFETY: C strings; new references.
        unsafe {
            let asyncio = Owned::from_new(ffi::PyImport_ImportModule(c"asyncio".as_ptr()))?;
            let task_class = Owned::from_new(ffi::PyObject_GetAttrString(
                asyncio.as_ptr(),
                c"Task".as_ptr(),
            ))?;
            let create_future = Owned::from_new(ffi::PyObject_GetAttrString(
                event_loop.as_ptr(),
                c"create_future".as_ptr(),
            ))?;
            let task_options = Owned::from_new(ffi::PyDict_New())?;
            let mut options = vec![(c"loop", event_loop.clone_ref(py))];
            if cfg!(Py_3_12) {
                options.push((c"eager_start", boolean(py, true)));
            }
            for (name, value) in options {
                if ffi::PyDict_SetItemString(task_options.as_ptr(), name.as_ptr(), value.as_ptr())
                    < 0
                {
                    return Err(Raised);
                }
            }
            Ok(PythonLoop {
                event_loop,
                task_class,
                task_options,
                create_future,
                #[cfg(not(Py_3_12))]
                catcher: self.function(py, &CATCH)?,
                #[cfg(not(Py_3_12))]
                caught: Cell::new(None),
            })
        }
    }

    /// A function of ours that knows the loop.
    fn function<const N: usize>(
        &'static self,
        py: Attached,
        method: &'static Methods<N>,
    ) -> Result<Owned> {
        let capsule = self.capsule(py)?;
        // SAFETY: a static method table and a live object.
        unsafe {
            Owned::from_new(ffi::PyCFunction_New(
                method.0.as_ptr().cast_mut(),
                capsule.as_ptr(),
            ))
        }
    }

    fn capsule(&'static self, _py: Attached) -> Result<Owned> {
        // SAFETY: a pointer that stays valid, and a static name.
        unsafe {
            Owned::from_new(ffi::PyCapsule_New(
                core::ptr::from_ref(self).cast_mut().cast(),
                NAME.as_ptr(),
                None,
            ))
        }
    }

    /// What Python knows of the loop.
    ///
    /// # Errors
    /// Raises RuntimeError before there is anything.
    pub fn python(&self, py: Attached) -> Result<&PythonLoop> {
        let python = self.inner.python.get();
        python.ok_or_else(|| raise(py, Raise::Runtime, "the event loop has not begun"))
    }

    /// A new future of the loop.
    ///
    /// # Errors
    /// No memory.
    pub fn new_future(&self, py: Attached) -> Result<Owned> {
        let python = self.python(py)?;
        // SAFETY: a live callable.
        unsafe { Owned::from_new(ffi::PyObject_CallNoArgs(python.create_future.as_ptr())) }
    }

    /// Sets a future's result, unless it has been cancelled.
    pub fn wake_future(&self, py: Attached, future: &Owned) {
        let names = &py.interpreter().asgi().names;
        let wake = || -> Result<()> {
            let done = awaitable::method(py, future, &names.done, &[])?;
            // SAFETY: attached.
            if done.as_ptr() == unsafe { ffi::Py_True() } {
                return Ok(());
            }
            awaitable::method(py, future, &names.set_result, &[&Owned::none(py)]).map(drop)
        };
        if let Err(raised) = wake() {
            raised.clear(py);
        }
    }

    // ---- connections -----------------------------------------------------------------------

    fn ready(&'static self, py: Attached) {
        self.beat_ms
            .store(crate::daemon::board::now_ms(), Ordering::Relaxed);
        // SAFETY: plain data for which all zeroes is a value.
        let mut events: [libc::epoll_event; EVENTS] = unsafe { core::mem::zeroed() };
        // SAFETY: room for as many events.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                0,
            )
        };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            match event.u64 {
                WAKE => self.on_wake(py),
                TICK => self.on_tick(py),
                token => {
                    if let Some(link) = self.link(token) {
                        self.on_event(py, &link, event.events as i32);
                    }
                }
            }
        }
        self.begin_postponed(py);
        if self.is_draining() {
            self.go_on_draining(py);
        }
    }

    /// The connection with this token, if it is still there.
    pub fn link(&self, token: u64) -> Option<Rc<Link>> {
        let links = self.inner.links.borrow();
        let place = links.get((token & 0xffff_ffff) as usize)?;
        if u64::from(place.generation) != token >> 32 {
            return None;
        }
        place.link.clone()
    }

    fn add(&self, socket: OwnedFd) -> Option<Rc<Link>> {
        let mut links = self.inner.links.borrow_mut();
        let index = self.inner.free.borrow_mut().pop().unwrap_or_else(|| {
            links.push(Place {
                generation: 0,
                link: None,
            });
            (links.len() - 1) as u32
        });
        let place = &mut links[index as usize];
        // Never 0, so that no token is 0.
        place.generation = (place.generation % (u32::MAX - 1)) + 1;
        let token = u64::from(place.generation) << 32 | u64::from(index);
        match Link::new(socket, self.epoll.as_raw_fd(), token) {
            Ok(link) => {
                place.link = Some(Rc::clone(&link));
                Some(link)
            }
            Err(_) => {
                self.inner.free.borrow_mut().push(index);
                None
            }
        }
    }

    /// Forgets a connection, which is closed.
    pub fn remove(&self, link: &Link) {
        link.close();
        let index = (link.token & 0xffff_ffff) as u32;
        let mut links = self.inner.links.borrow_mut();
        let Some(place) = links.get_mut(index as usize) else {
            return;
        };
        if u64::from(place.generation) != link.token >> 32 {
            return;
        }
        let removed = place.link.take();
        drop(links);
        if removed.is_some() {
            self.inner.free.borrow_mut().push(index);
        }
    }

    /// Takes the shared buffer for a while; another is made for whoever wants it meanwhile.
    pub fn take_buffer(&self) -> Vec<u8> {
        let mut buffer = self.inner.buffer.take();
        if buffer.len() < BUFFER {
            buffer = vec![0; BUFFER];
        }
        buffer
    }

    /// Gives it back.
    pub fn give_buffer(&self, buffer: Vec<u8>) {
        self.inner.buffer.replace(buffer);
    }

    fn on_wake(&'static self, py: Attached) {
        let mut value = 0_u64;
        // SAFETY: eight bytes from an open eventfd.
        unsafe {
            libc::read(
                self.wake.as_raw_fd(),
                (&raw mut value).cast(),
                size_of::<u64>(),
            )
        };
        let messages =
            core::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for message in messages {
            match message {
                Message::Adopt(socket, frame) => {
                    let Some(link) = self.add(socket) else {
                        continue;
                    };
                    if !frame.is_empty() {
                        *link.input.borrow_mut() = frame;
                    }
                    self.on_event(py, &link, libc::EPOLLIN);
                }
                Message::Log(token, level, line) => {
                    if !self.log_for(token, level, None, &line) {
                        self.house.log(level, &line);
                    }
                }
            }
        }
    }

    /// Something has happened at a connection.
    pub fn on_event(&'static self, py: Attached, link: &Rc<Link>, events: i32) {
        if events & libc::EPOLLOUT != 0 {
            if link.flush() == Sent::Gone {
                self.on_end(py, link);
                return;
            }
            if link.is_closed() {
                self.remove(link);
                return;
            }
            if link.waiting() <= super::link::LOW_WATER {
                let phase = link.phase.borrow().clone();
                match phase {
                    Phase::Idle => {}
                    Phase::Http(http) => http.on_room(py),
                    Phase::WebSocket(session) => session.on_room(py),
                }
            }
        }
        if events & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            super::arrival::read(self, py, link, events & !libc::EPOLLIN != 0);
        }
    }

    /// The other end of a connection has gone.
    pub fn on_end(&self, py: Attached, link: &Rc<Link>) {
        let phase = core::mem::replace(&mut *link.phase.borrow_mut(), Phase::Idle);
        self.remove(link);
        match phase {
            Phase::Idle => {}
            Phase::Http(http) => http.on_gone(py),
            Phase::WebSocket(session) => session.on_gone(py),
        }
    }

    /// Logs for the request of a connection. `false`: there is none any more.
    pub fn log_for(
        &self,
        token: u64,
        level: Level,
        source: Option<Source<'_>>,
        line: &[u8],
    ) -> bool {
        match self.link(token) {
            Some(link) if !matches!(*link.phase.borrow(), Phase::Idle) => {
                link.log(level, source, line)
            }
            _ => false,
        }
    }

    // ---- requests --------------------------------------------------------------------------

    /// Whether another HTTP request may begin. If not, the connection is looked at again as soon
    /// as one may.
    pub fn may_begin(&self, link: &Link) -> bool {
        let most = crate::python::runtime::runtime().map_or(0, |r| r.options.concurrency);
        if most == 0 || self.inner.requests.get() < most {
            return true;
        }
        self.inner.postponed.borrow_mut().push_back(link.token);
        false
    }

    /// A request or a WebSocket begins.
    pub fn request_began(&self, is_http: bool) {
        self.active.fetch_add(1, Ordering::Relaxed);
        if is_http {
            self.inner.requests.set(self.inner.requests.get() + 1);
        }
        if !self.inner.ticks.replace(true) {
            self.set_timer(TICK_EVERY);
        }
    }

    /// The reply has been sent to its end; the application may go on.
    pub fn reply_ended(&self, token: u64) {
        let Some(link) = self.link(token) else {
            return;
        };
        *link.phase.borrow_mut() = Phase::Idle;
        if self.is_draining() && link.close_when_sent() {
            self.remove(&link);
        }
    }

    /// The application has done with an HTTP request.
    pub fn request_ended(&self) {
        self.inner.requests.set(self.inner.requests.get() - 1);
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.house.finished();
        if self.is_draining() || !self.inner.postponed.borrow().is_empty() {
            self.signal();
        }
    }

    /// Has a connection looked at again, in the loop's next round.
    pub fn look_again(&self, token: u64) {
        self.inner.again.borrow_mut().push(token);
        self.signal();
    }

    /// Requests that had to wait for others.
    fn begin_postponed(&'static self, py: Attached) {
        for token in self.inner.again.take() {
            if let Some(link) = self.link(token) {
                self.on_event(py, &link, libc::EPOLLIN);
            }
        }
        let count = self.inner.postponed.borrow().len();
        for _ in 0..count {
            let next = self.inner.postponed.borrow_mut().pop_front();
            let Some(link) = next.and_then(|token| self.link(token)) else {
                continue;
            };
            if !self.may_begin(&link) {
                return;
            }
            self.on_event(py, &link, libc::EPOLLIN);
        }
    }

    /// A WebSocket is over.
    pub fn session_ended(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.house.finished();
        if self.is_draining() {
            self.signal();
        }
    }

    /// The load, as the frame that ends a reply tells it: without the request that ends.
    pub fn load_without_one(&self) -> u16 {
        self.house.load().saturating_sub(1)
    }

    // ---- applications ----------------------------------------------------------------------

    /// The applications that have been asked for.
    pub fn applications(&self) -> &RefCell<Vec<Arc<Application>>> {
        &self.inner.applications
    }

    // ---- time ------------------------------------------------------------------------------

    fn set_timer(&self, every: Duration) {
        let time = libc::timespec {
            tv_sec: every.as_secs() as libc::time_t,
            tv_nsec: every.subsec_nanos().into(),
        };
        let spec = libc::itimerspec {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: a valid structure; an open timer.
        unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &spec, core::ptr::null_mut());
        }
    }

    fn on_tick(&'static self, py: Attached) {
        let mut value = 0_u64;
        // SAFETY: eight bytes from an open timer.
        unsafe {
            libc::read(
                self.timer.as_raw_fd(),
                (&raw mut value).cast(),
                size_of::<u64>(),
            )
        };
        let now = Instant::now();
        let bounds = self.house.bounds();
        self.each_phase(|phase| match phase {
            Phase::Idle => {}
            Phase::Http(http) => {
                if let Some(since) = http.cancelled_at.get() {
                    if now.duration_since(since) > CANCEL_GRACE {
                        http.give_up(py);
                    }
                } else if bounds
                    .request
                    .is_some_and(|longest| now.duration_since(http.began) > longest)
                {
                    http.cancel(py, Cancelled::Timeout);
                }
            }
            Phase::WebSocket(session) => session.on_tick(py, now),
        });
        if self.active.load(Ordering::Relaxed) == 0 && !self.is_draining() {
            self.inner.ticks.set(false);
            self.set_timer(Duration::ZERO);
        }
    }

    fn each_phase(&self, mut visit: impl FnMut(Phase)) {
        let mut index = 0;
        loop {
            let phase = {
                let links = self.inner.links.borrow();
                let Some(place) = links.get(index) else {
                    return;
                };
                place.link.as_ref().map(|link| link.phase.borrow().clone())
            };
            if let Some(phase) = phase {
                visit(phase);
            }
            index += 1;
        }
    }

    // ---- the end ---------------------------------------------------------------------------

    fn go_on_draining(&'static self, py: Attached) {
        let inner = &self.inner;
        if inner.deadline.get().is_none() {
            inner
                .deadline
                .set(Some(Instant::now() + self.house.bounds().drain));
            inner.ticks.set(true);
            self.set_timer(Duration::from_millis(200));
        }
        self.let_idle_go(py);
        let late = inner
            .deadline
            .get()
            .is_some_and(|deadline| Instant::now() >= deadline);
        if late && !inner.forced.replace(true) {
            self.each_phase(|phase| match phase {
                Phase::Idle => {}
                Phase::Http(http) => http.cancel(py, Cancelled::Drain),
                Phase::WebSocket(session) => session.restart(py),
            });
        }
        if self.active.load(Ordering::Relaxed) == 0 && !inner.shutting_down.replace(true) {
            self.shut_down(py);
        }
    }

    /// Idle connections are closed, with a word.
    fn let_idle_go(&'static self, py: Attached) {
        let mut index = 0;
        loop {
            let link = {
                let links = self.inner.links.borrow();
                let Some(place) = links.get(index) else {
                    return;
                };
                place.link.clone()
            };
            if let Some(link) = link
                && matches!(*link.phase.borrow(), Phase::Idle)
                && !link.is_closed()
            {
                let _ = py;
                link.send_header(Kind::GoAway, flag::CLOSE, 0);
                if link.close_when_sent() {
                    self.remove(&link);
                }
            }
            index += 1;
        }
    }

    /// Tells the applications, then ends the loop.
    fn shut_down(&'static self, py: Attached) {
        let applications = self.inner.applications.take();
        let left = Rc::new(Cell::new(applications.len()));
        if applications.is_empty() {
            self.stop(py);
            return;
        }
        for application in applications {
            let left = Rc::clone(&left);
            application.shut_down(py, move |py| {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    self.stop(py);
                }
            });
        }
    }

    fn stop(&'static self, py: Attached) {
        let stop = || -> Result<()> {
            let event_loop = self.python(py)?.event_loop.clone_ref(py);
            let state = py.interpreter().asgi();
            state.call(py, c"stop", [event_loop]).map(drop)
        };
        if let Err(raised) = stop() {
            raised.clear(py);
        }
    }
}

/// An HTTP request on its way into its connection.
pub fn set_phase_http(link: &Link, http: &Arc<Http>) {
    *link.phase.borrow_mut() = Phase::Http(Arc::clone(http));
}

/// A WebSocket likewise.
pub fn set_phase_websocket(link: &Link, session: &Arc<Session>) {
    *link.phase.borrow_mut() = Phase::WebSocket(Arc::clone(session));
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

/// The name of capsules with a loop.
const NAME: &core::ffi::CStr = c"rwsgi.EventLoop";

static READY: Methods<1> = Methods([slots::no_args(c"ready", ready)]);
static LOG: Methods<1> = Methods([slots::one_arg(c"log", log_text)]);
#[cfg(not(Py_3_12))]
static CATCH: Methods<1> = Methods([slots::any_args(c"call_soon", catch)]);

/// Runs `body` with the loop of a function's capsule.
///
/// # Safety
/// Called by CPython, attached, with `capsule` that of [`EventLoop::function`].
unsafe fn with_loop(
    capsule: *mut ffi::PyObject,
    body: impl FnOnce(Attached, &'static EventLoop) -> Result<Owned>,
) -> *mut ffi::PyObject {
    object_slot(|| {
        // SAFETY: by contract; a loop is never freed.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
            let Some(event_loop) = pointer.cast::<EventLoop>().as_ref() else {
                return Err(Raised);
            };
            let py = Attached::assume(event_loop.interpreter);
            order::within(py, || body(py, event_loop))
        }
    })
}

/// Something in the epoll set is ready.
unsafe extern "C" fn ready(
    capsule: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_NOARGS of a function of ours.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            event_loop.ready(py);
            Ok(Owned::none(py))
        })
    }
}

/// A warning of `loop.py`.
unsafe extern "C" fn log_text(
    capsule: *mut ffi::PyObject,
    text: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_O of a function of ours, called with a str.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            let text = crate::python::object::latin1_bytes(py, text)?;
            let line = [messages::ASGI_TASK_EXIT.to_string().as_bytes(), text].concat();
            event_loop.house.log(Level::Error, &line);
            Ok(Owned::none(py))
        })
    }
}

/// `call_soon(step, context=context)` of a task that is being made.
#[cfg(not(Py_3_12))]
unsafe extern "C" fn catch(
    capsule: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: METH_VARARGS and METH_KEYWORDS of a function of ours: a tuple, and a dict or null.
    unsafe {
        with_loop(capsule, |py, event_loop| {
            let python = event_loop.python(py)?;
            let context = if keywords.is_null() {
                None
            } else {
                crate::python::object::dict_item_by_name(py, keywords, c"context")?
            };
            let (1.., Some(context)) = (ffi::PyTuple_GET_SIZE(arguments), context) else {
                return Err(raise(
                    py,
                    Raise::Type,
                    "call_soon() takes a callback and a context",
                ));
            };
            let step = Owned::from_borrowed(py, ffi::PyTuple_GET_ITEM(arguments, 0));
            let previous = python.caught.replace(Some((step, context)));
            drop(previous);
            // The handle, which a task keeps to itself.
            Ok(Owned::none(py))
        })
    }
}
