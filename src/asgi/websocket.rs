//! One WebSocket: what `receive()` and `send()` of its application do, and the tunnel to the client.

use core::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::application::Application;
use super::awaitable::Poll;
use super::event_loop::EventLoop;
use super::http::encode_head;
use super::link::{HIGH_WATER, Link, Phase, Sent};
use super::message::{Fields, Message, is};
use super::state::dict;
use crate::daemon::wire::{HEADER, Header, Kind, LARGEST, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{AsgiSettings, Level, Pair, Slice, Text};
use crate::messages;
use crate::python::attach::Attached;
use crate::python::exceptions;
use crate::python::object::{Owned, bytes, bytes_of, int};
use crate::python::raise::{Kind as Raise, Raised, Result, raise};
use crate::websocket::handshake::{Accept, Offer, VERSION};
use crate::websocket::{Connection, Event, Limits, is_close_code};

/// How long the client may take to answer our close.
const CLOSING: Duration = Duration::from_secs(5);
/// How long an application may go on when its WebSocket is over.
const GONE_GRACE: Duration = Duration::from_secs(5);
/// Bytes of messages that wait for the application, beside their number.
const QUEUE_BYTES: usize = 1024 * 1024;

/// No larger message is sent: what fits into a frame of the wire.
const LARGEST_MESSAGE: usize = LARGEST as usize - 1024;

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

    /// Answers a handshake that does not reach an application.
    pub fn reject(event_loop: &EventLoop, link: &Rc<Link>, status: u16, why: &str) {
        let fields = [
            Pair {
                name: "content-type".into(),
                value: "text/plain".into(),
            },
            Pair {
                name: "sec-websocket-version".into(),
                value: VERSION.into(),
            },
        ];
        let line = status.to_string();
        let head = ResponseHead {
            status,
            status_line: Text::from(line.as_bytes()),
            headers: Slice::new(if status == 426 { &fields } else { &fields[..1] }),
            content_length: -1,
        };
        let mut frame = Vec::new();
        if reply::encode(&head, &mut frame).is_ok() {
            frame.extend_from_slice(why.as_bytes());
            reply::finish(&mut frame, 0, flag::END, event_loop.load_without_one());
            link.send([&frame]);
        }
        event_loop.house.finished();
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

    // ---- the connection has something ------------------------------------------------------

    /// Whether messages may still be taken.
    pub fn has_room(&self) -> bool {
        // After our close messages are dropped, and the client's close is awaited.
        if self.stage.get() == Stage::Closing {
            return true;
        }
        let most = usize::from(self.settings.websocket_queue.max(1));
        self.queue.borrow().len() < most && self.queued_bytes.get() < QUEUE_BYTES
    }

    /// Bytes of the client.
    pub fn on_bytes(&self, py: Attached, bytes: &[u8]) {
        let mut out = Vec::new();
        let mut events = Vec::new();
        match &mut *self.protocol.borrow_mut() {
            Some(protocol) => {
                // Who pings and does not read must not fill the memory with answers.
                protocol.set_unsent(self.unsent(), &mut out);
                protocol.receive(bytes, &mut out, &mut events);
            }
            // Before the 101 nobody may send anything; httpd does not pass it on.
            None => return,
        }
        let mut news = false;
        let mut end = None;
        for event in events {
            match event {
                Event::Ping => {}
                Event::Pong(_) => self.pong_awaited.set(false),
                Event::Closed { code, reason } => end = Some((code, reason)),
                Event::Failed { code, reason } => end = Some((code, reason.to_owned())),
                Event::Text(_) | Event::Binary(_) => {
                    let length = match &event {
                        Event::Text(text) => text.len(),
                        Event::Binary(data) => data.len(),
                        _ => 0,
                    };
                    self.queued_bytes.set(self.queued_bytes.get() + length);
                    self.queue.borrow_mut().push_back(event);
                    news = true;
                }
            }
        }
        if let Some((code, reason)) = end {
            self.disconnect.borrow_mut().get_or_insert((code, reason));
            self.finish(py, &out);
            return;
        }
        if !out.is_empty() {
            self.transmit(py, &out, 0);
        }
        if news {
            self.wake(py, &self.waiters);
        }
    }

    /// The connection has ended.
    pub fn on_gone(&self, py: Attached) {
        self.stage.set(Stage::Over);
        self.disconnect
            .borrow_mut()
            .get_or_insert((ABNORMAL, String::new()));
        let link = self.link.take();
        if let Some(link) = link {
            *link.phase.borrow_mut() = Phase::Closing;
            self.event_loop.remove(&link);
        }
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
        self.count_out();
    }

    /// Both are over, the application and the connection: it does not count as active any longer.
    fn count_out(&self) {
        if self.token.get() == 0 && self.stage.get() == Stage::Over && self.counted.replace(false) {
            self.event_loop.session_ended(self.place.get());
        }
    }

    /// There is room to send.
    pub fn on_room(&self, py: Attached) {
        let mut out = Vec::new();
        if let Some(protocol) = &mut *self.protocol.borrow_mut() {
            protocol.set_unsent(self.unsent(), &mut out);
        }
        if !out.is_empty() {
            self.transmit(py, &out, 0);
        }
        self.wake(py, &self.senders);
    }

    /// Bytes that wait for room.
    fn unsent(&self) -> usize {
        self.link.borrow().as_ref().map_or(0, |link| link.waiting())
    }

    fn wake(&self, py: Attached, waiters: &RefCell<Vec<Owned>>) {
        if waiters.borrow().is_empty() {
            return;
        }
        for future in waiters.take() {
            self.event_loop.wake_future(py, &future);
        }
    }

    /// Sends bytes for the client.
    fn transmit(&self, py: Attached, data: &[u8], flags: u8) {
        let header = Header {
            flags: flags | flag::FLUSH,
            ..Header::new(Kind::Data, data.len() as u32)
        };
        let sent = match &*self.link.borrow() {
            Some(link) => link.send([&header.encode(), data]),
            None => Sent::Gone,
        };
        if sent == Sent::Gone {
            self.on_gone(py);
        }
    }

    /// All is said: sends the last bytes, and has httpd close the connection.
    fn finish(&self, py: Attached, last: &[u8]) {
        if self.stage.get() == Stage::Over {
            return;
        }
        self.transmit(py, last, flag::END);
        self.stage.set(Stage::Over);
        self.protocol.replace(None);
        let link = self.link.take();
        if let Some(link) = link {
            if link.close_when_sent() {
                self.event_loop.remove(&link);
            }
        }
        self.disconnect
            .borrow_mut()
            .get_or_insert((ABNORMAL, String::new()));
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
        self.count_out();
    }

    /// Sends a close frame; the client's answer ends the connection.
    fn close(&self, py: Attached, code: u16, reason: &str) {
        let mut out = Vec::new();
        if let Some(protocol) = &mut *self.protocol.borrow_mut() {
            protocol.close(code, reason, &mut out);
        }
        self.stage.set(Stage::Closing);
        self.closing_since.set(Some(Instant::now()));
        self.transmit(py, &out, 0);
        self.look_again();
    }

    // ---- time ------------------------------------------------------------------------------

    /// Called about every second. `grace` is how long a cancelled task may go on.
    pub fn on_tick(&self, py: Attached, now: Instant, grace: Duration) {
        match self.stage.get() {
            Stage::Open => self.ping(py, now),
            Stage::Closing => {
                let late = self.closing_since.get().is_some_and(|since| {
                    let longest = if self.restarts.get() { grace } else { CLOSING };
                    now.duration_since(since) > longest
                });
                if late {
                    self.finish(py, b"");
                    if self.restarts.get() && self.cancelled_at.get().is_none() {
                        self.cancel(py);
                    }
                }
            }
            Stage::Asking | Stage::Denying | Stage::DenyingBody => {
                self.end_cancelled(py, now, grace)
            }
            Stage::Over => {
                let over = *self.over_since.get().get_or_insert(now);
                self.over_since.set(Some(over));
                if self.cancelled_at.get().is_none() && now.duration_since(over) > GONE_GRACE {
                    self.cancel(py);
                }
                self.end_cancelled(py, now, grace);
            }
        }
    }

    /// An application that has ignored its cancellation is not waited for any longer.
    fn end_cancelled(&self, py: Attached, now: Instant, grace: Duration) {
        let late = self
            .cancelled_at
            .get()
            .is_some_and(|since| now.duration_since(since) > grace);
        if !late || self.token.get() == 0 {
            return;
        }
        let line = format!(
            "{}the task of a WebSocket that is over goes on although it was cancelled: {}",
            messages::ASGI_TIMEOUT,
            self.script()
        );
        self.event_loop.house.log(Level::Warning, line.as_bytes());
        if self.stage.get() != Stage::Over {
            self.end_with_status(py, 503);
        }
        self.let_go(py);
    }

    fn ping(&self, py: Attached, now: Instant) {
        let every = Duration::from_secs(self.settings.websocket_ping_s.into());
        if every.is_zero() || now.duration_since(self.last_ping.get()) < every {
            return;
        }
        // What the application does not read, it cannot answer for either.
        let stopped = self
            .link
            .borrow()
            .as_ref()
            .is_some_and(|link| link.stopped.get());
        if self.pong_awaited.get() && !stopped {
            self.disconnect
                .borrow_mut()
                .get_or_insert((INTERNAL_ERROR, "keepalive ping timeout".to_owned()));
            self.close(py, INTERNAL_ERROR, "keepalive ping timeout");
            let out = Vec::new();
            self.finish(py, &out);
            return;
        }
        self.last_ping.set(now);
        self.pong_awaited.set(true);
        let mut out = Vec::new();
        if let Some(protocol) = &mut *self.protocol.borrow_mut() {
            protocol.ping(b"", &mut out);
        }
        self.transmit(py, &out, 0);
    }

    /// The process ends.
    pub fn restart(&self, py: Attached) {
        match self.stage.get() {
            Stage::Open => {
                self.disconnect
                    .borrow_mut()
                    .get_or_insert((SERVICE_RESTART, String::new()));
                self.restarts.set(true);
                self.close(py, SERVICE_RESTART, "");
                self.wake(py, &self.waiters);
            }
            Stage::Closing => self.restarts.set(true),
            Stage::Asking | Stage::Denying | Stage::DenyingBody | Stage::Over => self.cancel(py),
        }
    }

    fn cancel(&self, py: Attached) {
        self.cancelled_at.set(Some(Instant::now()));
        let task = self.task.borrow().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = task {
            let cancel = &py.interpreter().asgi().names.cancel;
            if let Err(raised) = super::coroutine::method(py, &task, cancel, &[]) {
                raised.clear(py);
            }
        }
    }

    // ---- receive() -------------------------------------------------------------------------

    /// One step of `receive()`.
    ///
    /// # Errors
    /// No memory.
    pub fn receive(&self, py: Attached) -> Result<Poll> {
        let names = &py.interpreter().asgi().names;
        if !self.told_connect.replace(true) {
            return dict(py, [(&names.type_, names.websocket_connect.clone_ref(py))])
                .map(Poll::Ready);
        }
        let event = self.queue.borrow_mut().pop_front();
        if let Some(event) = event {
            let (key, value, length) = match &event {
                Event::Text(text) => (
                    &names.text,
                    // SAFETY: pointer and length of a str.
                    unsafe {
                        Owned::from_new(ffi::PyUnicode_FromStringAndSize(
                            text.as_ptr().cast(),
                            text.len() as ffi::Py_ssize_t,
                        ))?
                    },
                    text.len(),
                ),
                Event::Binary(data) => (&names.bytes, bytes(py, data)?, data.len()),
                // Only messages are queued.
                _ => return self.receive(py),
            };
            drop(event);
            self.queued_bytes
                .set(self.queued_bytes.get().saturating_sub(length));
            self.read_on();
            return dict(
                py,
                [
                    (&names.type_, names.websocket_receive.clone_ref(py)),
                    (key, value),
                ],
            )
            .map(Poll::Ready);
        }
        let disconnect = self.disconnect.borrow().clone();
        if let Some((code, reason)) = disconnect {
            let reason = crate::python::object::latin1(py, b"")
                .and_then(|empty| text_or(py, &reason, empty))?;
            return dict(
                py,
                [
                    (&names.type_, names.websocket_disconnect.clone_ref(py)),
                    (&names.code, int(py, code.into())?),
                    (&names.reason, reason),
                ],
            )
            .map(Poll::Ready);
        }
        let future = self.event_loop.new_future(py)?;
        self.event_loop.add_waiter(py, &self.waiters, &future);
        Ok(Poll::Wait(future))
    }

    /// Reading had stopped for want of room, and there is room again.
    fn read_on(&self) {
        let half = usize::from(self.settings.websocket_queue.max(1)) / 2;
        if self.queue.borrow().len() > half {
            return;
        }
        // It could not be heard while nothing was read.
        self.last_ping.set(Instant::now());
        self.pong_awaited.set(false);
        self.look_again();
    }

    /// Has what the client has sent read, if reading had stopped.
    fn look_again(&self) {
        if let Some(link) = &*self.link.borrow()
            && link.stopped.replace(false)
        {
            self.event_loop.look_again(link.token);
        }
    }

    // ---- send() ----------------------------------------------------------------------------

    /// One step of `send()`; `message` is there at the first.
    ///
    /// # Errors
    /// What is wrong with the message; OSError if the client has gone.
    pub fn send(&self, py: Attached, message: Option<Owned>) -> Result<Poll> {
        if let Some(message) = message {
            self.take(py, &message)?;
        } else if self.stage.get() == Stage::Over {
            return Err(gone(py));
        }
        if self.unsent() <= HIGH_WATER {
            return Ok(Poll::Ready(Owned::none(py)));
        }
        let future = self.event_loop.new_future(py)?;
        self.event_loop.add_waiter(py, &self.senders, &future);
        Ok(Poll::Wait(future))
    }

    fn take(&self, py: Attached, object: &Owned) -> Result<()> {
        let message = Message::new(py, object)?;
        let kind = message.kind(py)?;
        let names = &py.interpreter().asgi().names;
        match self.stage.get() {
            Stage::Open if is(py, &kind, &names.websocket_send) => self.send_message(py, &message),
            Stage::Open if is(py, &kind, &names.websocket_close) => {
                let (code, reason) = close_of(py, &message)?;
                self.close(py, code, &reason);
                Ok(())
            }
            Stage::Asking if is(py, &kind, &names.websocket_accept) => self.accept(py, &message),
            Stage::Asking if is(py, &kind, &names.websocket_close) => {
                self.end_with_status(py, 403);
                Ok(())
            }
            Stage::Asking if is(py, &kind, &names.denial_start) => {
                // Headers may be an iterator, which is the application's code and may come here.
                let mut head = Vec::new();
                encode_head(py, &message, &mut head)?;
                if self.stage.get() == Stage::Asking {
                    *self.head.borrow_mut() = head;
                    self.stage.set(Stage::Denying);
                }
                Ok(())
            }
            Stage::Denying | Stage::DenyingBody if is(py, &kind, &names.denial_body) => {
                self.deny(py, &message)
            }
            // A client may close while the application sends.
            Stage::Closing | Stage::Over if self.disconnect.borrow().is_some() => Err(gone(py)),
            stage => {
                // SAFETY: a live str.
                let kind = unsafe { crate::python::object::latin1_bytes(py, kind.as_ptr())? };
                let expected = match stage {
                    Stage::Asking => {
                        "websocket.accept, websocket.close or websocket.http.response.start is \
                         expected"
                    }
                    Stage::Denying | Stage::DenyingBody => {
                        "websocket.http.response.body is expected"
                    }
                    Stage::Open => "websocket.send or websocket.close is expected",
                    Stage::Closing | Stage::Over => "websocket.close has been sent",
                };
                let what = format!(
                    "Unexpected ASGI message '{}': {expected}",
                    String::from_utf8_lossy(kind)
                );
                Err(raise(py, Raise::Runtime, &what))
            }
        }
    }

    fn accept(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        let subprotocol = message.text(py, &names.subprotocol)?;
        let fields: Fields = message.headers(py)?;
        let Some(accept) = self.accept.take() else {
            return Err(raise(py, Raise::Runtime, "the handshake is over"));
        };
        let mut pairs = vec![
            Pair {
                name: "Upgrade".into(),
                value: "websocket".into(),
            },
            Pair {
                name: "Connection".into(),
                value: "Upgrade".into(),
            },
            Pair {
                name: "Sec-WebSocket-Accept".into(),
                value: Text::from(accept.key.as_bytes()),
            },
        ];
        if let Some(extensions) = &accept.extensions {
            pairs.push(Pair {
                name: "Sec-WebSocket-Extensions".into(),
                value: Text::from(extensions.as_bytes()),
            });
        }
        if let Some(subprotocol) = &subprotocol {
            let value = subprotocol.as_str().as_bytes();
            if let Err(error) = crate::exchange::response::check_field(b"x", value) {
                self.accept.replace(Some(accept));
                return Err(raise(py, Raise::Value, &error.about(b"subprotocol", value)));
            }
            pairs.push(Pair {
                name: "Sec-WebSocket-Protocol".into(),
                value: Text::from(value),
            });
        }
        // The handshake's own fields are the server's.
        pairs.extend(fields.pairs().into_iter().filter(|pair| {
            let name = pair.name.bytes();
            let own = ["accept", "extensions", "key", "version"];
            !own.iter()
                .any(|part| name.eq_ignore_ascii_case(format!("sec-websocket-{part}").as_bytes()))
        }));
        let head = ResponseHead {
            status: 101,
            status_line: "101 Switching Protocols".into(),
            headers: Slice::new(&pairs),
            content_length: -1,
        };
        let mut frame = Vec::new();
        if reply::encode(&head, &mut frame).is_err() {
            return Err(raise(
                py,
                Raise::Value,
                "the head of the response is too large",
            ));
        }
        let header = Header::new(Kind::Switch, (frame.len() - HEADER) as u32);
        frame[..HEADER].copy_from_slice(&header.encode());
        let limits = Limits {
            max_message: self.settings.websocket_max_message as usize,
        };
        self.protocol
            .replace(Some(Box::new(Connection::new(limits, accept.deflate))));
        self.stage.set(Stage::Open);
        self.last_ping.set(Instant::now());
        let sent = match &*self.link.borrow() {
            Some(link) => link.send([&frame]),
            None => Sent::Gone,
        };
        if sent == Sent::Gone {
            self.on_gone(py);
        }
        Ok(())
    }

    fn send_message(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        let data = message.bytes(py, &names.bytes)?;
        let text = match &data {
            Some(_) => None,
            None => message.text(py, &names.text)?,
        };
        let mut out = Vec::new();
        if let Some(protocol) = &mut *self.protocol.borrow_mut() {
            match (&data, &text) {
                (Some(data), _) => {
                    // SAFETY: a live bytes object.
                    let data = unsafe { bytes_of(data.as_ptr()) };
                    if data.len() > LARGEST_MESSAGE {
                        return Err(too_large(py));
                    }
                    protocol.send_binary(data, &mut out);
                }
                (None, Some(text)) => {
                    if text.as_str().len() > LARGEST_MESSAGE {
                        return Err(too_large(py));
                    }
                    protocol.send_text(text.as_str(), &mut out);
                }
                (None, None) => {
                    let what = "websocket.send needs 'bytes' or 'text'";
                    return Err(raise(py, Raise::Value, what));
                }
            }
        }
        self.transmit(py, &out, 0);
        Ok(())
    }

    fn deny(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        let body = message.bytes(py, &names.body)?;
        let more = message.truth(py, &names.more_body)?;
        let data: &[u8] = match &body {
            // SAFETY: a live bytes object.
            Some(body) => unsafe { bytes_of(body.as_ptr()) },
            None => &[],
        };
        let flags = if more { flag::FLUSH } else { flag::END };
        let load = self.event_loop.load_without_one();
        let first = self.stage.replace(Stage::DenyingBody) == Stage::Denying;
        let sent = match &*self.link.borrow() {
            None => Sent::Gone,
            Some(link) if first => {
                let mut head = self.head.take();
                reply::finish(&mut head, data.len(), flags, load);
                link.send([&head, data])
            }
            Some(link) => {
                let header = Header {
                    flags,
                    aux: load,
                    ..Header::new(Kind::Data, data.len() as u32)
                };
                link.send([&header.encode(), data])
            }
        };
        if sent == Sent::Gone {
            self.on_gone(py);
        } else if !more {
            self.answered(py);
        }
        Ok(())
    }

    /// The handshake has been answered with a whole HTTP response.
    fn answered(&self, py: Attached) {
        self.stage.set(Stage::Over);
        self.disconnect
            .borrow_mut()
            .get_or_insert((ABNORMAL, String::new()));
        let link = self.link.take();
        if let Some(link) = link {
            self.event_loop.reply_ended(link.token);
        }
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
        self.count_out();
    }

    fn end_with_status(&self, py: Attached, status: u16) {
        if let Some(link) = &*self.link.borrow() {
            link.send_header(Kind::Status, flag::END, status);
        }
        self.answered(py);
    }

    // ---- the end ---------------------------------------------------------------------------

    /// The application's startup has failed.
    pub fn refuse(&self, py: Attached) {
        self.end_with_status(py, 500);
        self.let_go(py);
    }

    /// The application has returned, or raised an exception.
    pub fn ended(&self, py: Attached, result: core::result::Result<(), Owned>) {
        let is_quiet = |exception: &Owned| {
            (self.disconnect.borrow().is_some()
                && (exceptions::is_os_error(py, exception) || is_disconnect(exception)))
                || (self.cancelled_at.get().is_some() && super::http::is_cancelled(py, exception))
        };
        let failed = match &result {
            Ok(()) => false,
            Err(exception) => {
                if !is_quiet(exception) {
                    self.report(py, exception);
                }
                true
            }
        };
        match self.stage.get() {
            Stage::Asking if failed => self.end_with_status(py, 500),
            Stage::Asking => {
                let line = format!(
                    "{}the application '{}' returned before it had answered the handshake of a \
                     WebSocket",
                    messages::ASGI_UNFINISHED,
                    self.script(),
                );
                self.log(Level::Error, line.as_bytes());
                self.end_with_status(py, 500);
            }
            Stage::Denying => self.end_with_status(py, 500),
            Stage::DenyingBody => {
                if let Some(link) = &*self.link.borrow() {
                    link.send_header(Kind::Data, flag::END | flag::BAD, 0);
                }
                self.answered(py);
            }
            Stage::Open => {
                let code = if failed { INTERNAL_ERROR } else { 1000 };
                self.close(py, code, "");
            }
            Stage::Closing | Stage::Over => {}
        }
        drop(result);
        self.let_go(py);
    }

    /// The application has done with it: the connection may still wait for the client's close.
    fn let_go(&self, py: Attached) {
        let token = self.token.replace(0);
        if token == 0 {
            return;
        }
        self.queue.borrow_mut().clear();
        self.queued_bytes.set(0);
        let application = self.application.take();
        let task = self.task.take();
        self.count_out();
        if self.stage.get() == Stage::Over {
            drop(self.link.take());
        } else {
            self.read_on();
        }
        drop(task);
        if let Some(application) = application {
            application.request_ended(py);
        }
    }

    fn script(&self) -> String {
        let application = self.application.borrow();
        let path = application
            .as_ref()
            .map(|application| &application.path[..]);
        String::from_utf8_lossy(path.unwrap_or_default()).into_owned()
    }

    fn log(&self, level: Level, line: &[u8]) {
        if !self.event_loop.log_for(self.log_token(), level, None, line) {
            self.event_loop.house.log(level, line);
        }
    }

    fn report(&self, py: Attached, exception: &Owned) {
        let script = self.script();
        let lines = exceptions::lines(
            py,
            Some(messages::ASGI_FAILED),
            "the application raised",
            script.as_bytes(),
            exception,
        );
        for line in &lines {
            self.log(Level::Error, line);
        }
    }
}

/// The code and the reason of `websocket.close`.
fn close_of(py: Attached, message: &Message<'_>) -> Result<(u16, String)> {
    let names = &py.interpreter().asgi().names;
    let code = message.integer(py, &names.code)?.unwrap_or(1000);
    let code = u16::try_from(code)
        .ok()
        .filter(|code| is_close_code(*code))
        .ok_or_else(|| {
            let what = format!("{code} is no code that may be sent with websocket.close");
            raise(py, Raise::Value, &what)
        })?;
    let reason = message.text(py, &names.reason)?;
    let reason = reason.map_or_else(String::new, |reason| reason.as_str().to_owned());
    Ok((code, reason))
}

fn text_or(_py: Attached, text: &str, empty: Owned) -> Result<Owned> {
    if text.is_empty() {
        return Ok(empty);
    }
    // SAFETY: pointer and length of a str.
    unsafe {
        Owned::from_new(ffi::PyUnicode_FromStringAndSize(
            text.as_ptr().cast(),
            text.len() as ffi::Py_ssize_t,
        ))
    }
}

/// Starlette's and others' name for it.
fn is_disconnect(exception: &Owned) -> bool {
    // SAFETY: a live exception.
    let name = unsafe { crate::python::object::type_name(exception.as_ptr()) };
    name.contains("Disconnect")
}

#[cold]
fn too_large(py: Attached) -> Raised {
    let what = format!("a message of a WebSocket must not be larger than {LARGEST_MESSAGE} bytes");
    raise(py, Raise::Value, &what)
}

fn gone(py: Attached) -> Raised {
    raise(py, Raise::Os, "the WebSocket is closed")
}
