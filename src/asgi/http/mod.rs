//! One HTTP request: what `receive()` and `send()` of its application do.
//!
//! | file | what |
//! |---|---|
//! | here | the request, and what becomes of its connection |
//! | [`receive`] | `receive()`: the body on its way to the application |
//! | [`send`] | `send()`: the response |
//! | [`extensions`] | what it sends beside that: files, early hints, trailers |
//! | [`end`] | its end, however that comes |

mod end;
mod extensions;
mod receive;
mod send;

pub use end::is_cancelled;
pub(super) use send::encode_head;

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::asgi::application::Application;
use crate::asgi::event_loop::EventLoop;
use crate::asgi::link::{Link, Phase, Sent};
use crate::asgi::scope;
use crate::daemon::wire::request::WireRequest;
use crate::metrics::task::TaskObservation;
use crate::python::attach::Attached;
use crate::python::object::Owned;

/// How long an application may go on when its client has gone before the response was complete.
const GONE_GRACE: Duration = Duration::from_secs(5);

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said.
    Silent,
    /// There is a head, which has not been sent.
    Head,
    /// The head has been sent.
    Streaming,
    /// The body is whole; trailers were announced and are to come.
    Trailers,
    /// Everything has been sent, or nothing more can be.
    Over,
}

/// What becomes of fields behind the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailers {
    /// None are to come: they were not announced, or the last ones have come.
    None,
    /// Some are to come, which the client cannot get: its protocol or the response has none.
    Dropped,
    /// Some are to come.
    Sent,
}

/// Why the task was cancelled by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// request-timeout.
    Timeout,
    /// The process ends.
    Drain,
    /// The client has gone.
    Gone,
}

/// The body on its way to the application.
struct Body {
    /// What has come and has not been read.
    arrived: Vec<u8>,
    /// Nothing more will come.
    complete: bool,
    /// A READ has been sent, which has not been answered to its end.
    asked: bool,
    /// The end has been handed to the application.
    ended: bool,
    /// The client's body is lost, with this status.
    lost: Option<u16>,
}

/// An HTTP request. Touched by the loop's thread only; when its last reference goes, perhaps on
/// another thread, it has let go of everything that belongs to the loop.
pub struct Http {
    /// Whose it is.
    pub event_loop: &'static EventLoop,
    /// The token of its connection; 0 when it is over.
    pub token: Cell<u64>,
    link: RefCell<Option<Rc<Link>>>,
    application: RefCell<Option<Arc<Application>>>,
    task: RefCell<Option<Owned>>,
    body: RefCell<Body>,
    /// Futures that somebody awaits in `receive`, or in `send`.
    waiters: RefCell<Vec<Owned>>,
    senders: RefCell<Vec<Owned>>,
    gone: Cell<bool>,
    gone_at: Cell<Option<Instant>>,
    stage: Cell<Stage>,
    head: RefCell<Vec<u8>>,
    declared: Cell<Option<u64>>,
    sent: Cell<u64>,
    /// Its place among what the loop has in hand.
    pub place: Cell<u32>,
    is_head: bool,
    /// The scope offers trailers.
    has_trailers: bool,
    trailers: Cell<Trailers>,
    observation: RefCell<Option<Box<TaskObservation>>>,
    /// When it began.
    pub began: Instant,
    /// Why the task was cancelled, if it was.
    pub cancelled: Cell<Option<Cancelled>>,
    /// When.
    pub cancelled_at: Cell<Option<Instant>>,
}

// SAFETY: see the type's contract; without a GIL the critical section of the interpreter orders what
// Python calls.
unsafe impl Send for Http {}

// SAFETY: as above.
unsafe impl Sync for Http {}

impl Http {
    /// A request that has come over `link`.
    pub fn new(
        event_loop: &'static EventLoop,
        link: Rc<Link>,
        application: Arc<Application>,
        request: &WireRequest<'_>,
    ) -> Http {
        Http {
            event_loop,
            token: Cell::new(link.token),
            link: RefCell::new(Some(link)),
            application: RefCell::new(Some(application)),
            task: RefCell::default(),
            body: RefCell::new(Body {
                arrived: request.body.to_vec(),
                complete: request.body_complete,
                asked: false,
                ended: false,
                lost: None,
            }),
            waiters: RefCell::default(),
            senders: RefCell::default(),
            gone: Cell::new(false),
            gone_at: Cell::new(None),
            stage: Cell::new(Stage::Silent),
            head: RefCell::default(),
            declared: Cell::new(None),
            sent: Cell::new(0),
            place: Cell::new(0),
            is_head: request.head.method.bytes() == b"HEAD",
            has_trailers: scope::has_trailers(&request.head),
            trailers: Cell::new(Trailers::None),
            observation: RefCell::new(TaskObservation::begin(&request.head)),
            began: Instant::now(),
            cancelled: Cell::new(None),
            cancelled_at: Cell::new(None),
        }
    }

    /// Notes the task, unless it is over already.
    pub fn set_task(&self, task: Owned) {
        if self.token.get() != 0 {
            *self.task.borrow_mut() = Some(task);
        }
    }

    /// Has the task cancelled.
    pub fn cancel(&self, py: Attached, why: Cancelled) {
        self.cancelled.set(Some(why));
        self.cancelled_at.set(Some(Instant::now()));
        let task = self.task.borrow().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = task {
            let cancel = &py.interpreter().asgi().names.cancel;
            if let Err(raised) = crate::asgi::coroutine::method(py, &task, cancel, &[]) {
                raised.clear(py);
            }
        }
    }

    /// The connection on which lines for the log may be sent; 0 when the reply is complete.
    pub fn log_token(&self) -> u64 {
        match self.stage.get() {
            Stage::Over => 0,
            _ => self.token.get(),
        }
    }

    /// Whether the client has gone, or nothing is to be answered any more.
    pub fn is_gone(&self) -> bool {
        self.gone.get() || self.token.get() == 0
    }

    /// Called about every second. `longest` is how long it may take to answer, `grace` how long a
    /// cancelled task may go on.
    pub fn on_tick(&self, py: Attached, now: Instant, longest: Option<Duration>, grace: Duration) {
        if let Some(since) = self.cancelled_at.get() {
            if now.duration_since(since) > grace {
                self.give_up(py);
            }
        } else if let Some(since) = self.gone_at.get() {
            if now.duration_since(since) > GONE_GRACE {
                self.cancel(py, Cancelled::Gone);
            }
        } else if self.stage.get() != Stage::Over
            && longest.is_some_and(|longest| now.duration_since(self.began) > longest)
        {
            self.cancel(py, Cancelled::Timeout);
        }
    }

    /// The connection has ended: so has the client's.
    pub fn on_gone(&self, py: Attached) {
        self.gone.set(true);
        // What goes on after the whole response does so for the application's own reasons.
        if self.stage.replace(Stage::Over) != Stage::Over {
            self.gone_at.set(Some(Instant::now()));
        }
        let link = self.link.take();
        if let Some(link) = link {
            *link.phase.borrow_mut() = Phase::Closing;
            self.event_loop.remove(&link);
        }
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
    }

    /// There is room to send.
    pub fn on_room(&self, py: Attached) {
        self.wake(py, &self.senders);
    }

    fn wake(&self, py: Attached, waiters: &RefCell<Vec<Owned>>) {
        if waiters.borrow().is_empty() {
            return;
        }
        for future in waiters.take() {
            self.event_loop.wake_future(py, &future);
        }
    }

    fn transmit<const N: usize>(&self, pieces: [&[u8]; N]) -> Sent {
        match &*self.link.borrow() {
            Some(link) => link.send(pieces),
            None => Sent::Gone,
        }
    }

    #[inline]
    fn observe(&self, note: impl FnOnce(&mut TaskObservation)) {
        if let Some(observation) = &mut *self.observation.borrow_mut() {
            note(observation);
        }
    }
}
