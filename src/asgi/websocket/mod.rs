//! One WebSocket: what `receive()` and `send()` of its application do, and the tunnel to the client.
//!
//! | file | what |
//! |---|---|
//! | here | the session, and what it knows of itself |
//! | [`handshake`] | how the handshake is answered: accepted, denied, refused |
//! | [`tunnel`] | bytes of the client, bytes for the client |
//! | [`receive`] | `receive()` |
//! | [`send`] | `send()` |
//! | [`time`] | what takes long: pings, closes, cancelled tasks |
//! | [`close`] | the end of the connection |
//! | [`end`] | the end of the application |

mod close;
mod end;
mod handshake;
mod receive;
mod send;
mod time;
mod tunnel;

use core::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::asgi::application::Application;
use crate::asgi::event_loop::EventLoop;
use crate::asgi::link::Link;
use crate::exchange::AsgiSettings;
use crate::python::attach::Attached;
use crate::python::object::Owned;
use crate::websocket::handshake::{Accept, Offer};
use crate::websocket::{Connection, Event};

/// Going away for a restart (IANA WebSocket Close Code registry).
const SERVICE_RESTART: u16 = 1012;
/// The application has failed.
const INTERNAL_ERROR: u16 = 1011;
/// No close frame has come.
const ABNORMAL: u16 = 1006;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The application has not accepted.
    Asking,
    /// The application answers with an HTTP response, whose head has not been sent.
    Denying,
    /// Whose head has been sent.
    DenyingBody,
    /// Messages go both ways.
    Open,
    /// Our close has been sent, the client's has not come.
    Closing,
    /// Nothing more can be sent.
    Over,
}

/// A WebSocket. Touched by the loop's thread only; when its last reference goes, perhaps on another
/// thread, it has let go of everything that belongs to the loop.
pub struct Session {
    /// Whose it is.
    pub event_loop: &'static EventLoop,
    /// The token of its connection; 0 when it is over.
    pub token: Cell<u64>,
    link: RefCell<Option<Rc<Link>>>,
    application: RefCell<Option<Arc<Application>>>,
    task: RefCell<Option<Owned>>,
    stage: Cell<Stage>,
    settings: AsgiSettings,
    accept: RefCell<Option<Accept>>,
    protocol: RefCell<Option<Box<Connection>>>,
    told_connect: Cell<bool>,
    queue: RefCell<VecDeque<Event>>,
    queued_bytes: Cell<usize>,
    /// What `websocket.disconnect` says, once there is something to say.
    disconnect: RefCell<Option<(u16, String)>>,
    waiters: RefCell<Vec<Owned>>,
    senders: RefCell<Vec<Owned>>,
    head: RefCell<Vec<u8>>,
    closing_since: Cell<Option<Instant>>,
    cancelled_at: Cell<Option<Instant>>,
    /// The process ends: nothing is waited for.
    restarts: Cell<bool>,
    over_since: Cell<Option<Instant>>,
    /// Its place among what the loop has in hand.
    pub place: Cell<u32>,
    /// It counts as active: until the application and the connection are over.
    counted: Cell<bool>,
    last_ping: Cell<Instant>,
    pong_awaited: Cell<bool>,
}

// SAFETY: see the type's contract.
unsafe impl Send for Session {}

// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// A handshake that has come over `link`.
    pub fn new(
        event_loop: &'static EventLoop,
        link: Rc<Link>,
        application: Arc<Application>,
        offer: &Offer<'_>,
        settings: AsgiSettings,
    ) -> Session {
        Session {
            event_loop,
            token: Cell::new(link.token),
            link: RefCell::new(Some(link)),
            application: RefCell::new(Some(application)),
            task: RefCell::default(),
            stage: Cell::new(Stage::Asking),
            settings,
            accept: RefCell::new(Some(offer.accept(settings.websocket_compression))),
            protocol: RefCell::default(),
            told_connect: Cell::new(false),
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            disconnect: RefCell::default(),
            waiters: RefCell::default(),
            senders: RefCell::default(),
            head: RefCell::default(),
            closing_since: Cell::new(None),
            cancelled_at: Cell::new(None),
            restarts: Cell::new(false),
            over_since: Cell::new(None),
            place: Cell::new(0),
            counted: Cell::new(true),
            last_ping: Cell::new(Instant::now()),
            pong_awaited: Cell::new(false),
        }
    }

    /// Notes the task, unless it is over already.
    pub fn set_task(&self, task: Owned) {
        if self.token.get() != 0 {
            *self.task.borrow_mut() = Some(task);
        }
    }

    fn cancel(&self, py: Attached) {
        self.cancelled_at.set(Some(Instant::now()));
        let task = self.task.borrow().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = task {
            let cancel = &py.interpreter().asgi().names.cancel;
            if let Err(raised) = crate::asgi::coroutine::method(py, &task, cancel, &[]) {
                raised.clear(py);
            }
        }
    }

    /// Whether the client has gone, or nothing is to be answered any more.
    pub fn is_gone(&self) -> bool {
        self.stage.get() == Stage::Over || self.token.get() == 0
    }

    /// The connection on which lines for the log may be sent; 0 when it is over.
    pub fn log_token(&self) -> u64 {
        match self.stage.get() {
            Stage::Over => 0,
            _ => self.token.get(),
        }
    }

    /// Both are over, the application and the connection: it does not count as active any longer.
    fn count_out(&self) {
        if self.token.get() == 0 && self.stage.get() == Stage::Over && self.counted.replace(false) {
            self.event_loop.session_ended(self.place.get());
        }
    }

    fn wake(&self, py: Attached, waiters: &RefCell<Vec<Owned>>) {
        if waiters.borrow().is_empty() {
            return;
        }
        for future in waiters.take() {
            self.event_loop.wake_future(py, &future);
        }
    }
}
