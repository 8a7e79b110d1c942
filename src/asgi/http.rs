//! One HTTP request: what `receive()` and `send()` of its application do.

use core::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::ffi;

use super::application::Application;
use super::awaitable::Poll;
use super::event_loop::EventLoop;
use super::link::{HIGH_WATER, Link, Phase, Sent};
use super::message::{Message, is};
use super::state::dict;
use crate::daemon::wire::request::WireRequest;
use crate::daemon::wire::{FileRange, HEADER, Header, Kind, Read, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Level, Pair, Slice, Text};
use crate::messages;
use crate::metrics::task::TaskObservation;
use crate::python::attach::Attached;
use crate::python::exceptions;
use crate::python::object::{Owned, boolean, bytes, bytes_of};
use crate::python::raise::{Kind as Raise, Raised, Result, raise};

/// What is asked for at once of a request's body.
const WINDOW: u32 = 64 * 1024;
/// How long an application may go on when its client has gone before the response was complete.
const GONE_GRACE: Duration = Duration::from_secs(5);
/// A frame carries no more of a body than this.
const LARGEST_PAYLOAD: usize = 16 * 1024 * 1024;

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said.
    Silent,
    /// There is a head, which has not been sent.
    Head,
    /// The head has been sent.
    Streaming,
    /// Everything has been sent, or nothing more can be.
    Over,
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
            if let Err(raised) = super::coroutine::method(py, &task, cancel, &[]) {
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

    // ---- the connection has something ------------------------------------------------------

    /// A frame of the client.
    pub fn on_frame(&self, py: Attached, header: Header, payload: &[u8]) -> bool {
        {
            let mut body = self.body.borrow_mut();
            match header.kind {
                Kind::Body if body.asked => {
                    body.arrived.extend_from_slice(payload);
                    if header.has(flag::END) {
                        body.complete = true;
                        body.asked = false;
                    } else if header.has(flag::GRANT_DONE) {
                        body.asked = false;
                    }
                }
                Kind::BodyFailed if body.asked => {
                    body.lost = Some(header.aux);
                    body.asked = false;
                }
                _ => return false,
            }
        }
        self.wake(py, &self.waiters);
        true
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

    // ---- receive() -------------------------------------------------------------------------

    /// One step of `receive()`.
    ///
    /// # Errors
    /// No memory.
    pub fn receive(&self, py: Attached) -> Result<Poll> {
        let names = &py.interpreter().asgi().names;
        {
            let mut body = self.body.borrow_mut();
            let is_last = body.complete && !body.ended;
            if !self.gone.get()
                && self.stage.get() != Stage::Over
                && (is_last || !body.arrived.is_empty())
            {
                let data = if body.arrived.is_empty() {
                    py.interpreter().asgi().empty.clone_ref(py)
                } else {
                    bytes(py, &body.arrived)?
                };
                self.observe(|observation| observation.note_input(body.arrived.len()));
                body.arrived.clear();
                if body.arrived.capacity() > WINDOW as usize {
                    body.arrived = Vec::new();
                }
                body.ended = body.complete;
                let more = boolean(py, !body.complete);
                drop(body);
                return dict(
                    py,
                    [
                        (&names.type_, names.http_request.clone_ref(py)),
                        (&names.body, data),
                        (&names.more_body, more),
                    ],
                )
                .map(Poll::Ready);
            }
            if self.gone.get() || self.stage.get() == Stage::Over || body.lost.is_some() {
                return dict(py, [(&names.type_, names.http_disconnect.clone_ref(py))])
                    .map(Poll::Ready);
            }
            if !body.complete && !body.asked {
                body.asked = true;
                let read = Read {
                    wanted: 1,
                    limit: WINDOW,
                };
                self.transmit([&read.encode()]);
            }
        }
        let future = self.event_loop.new_future(py)?;
        self.event_loop.add_waiter(py, &self.waiters, &future);
        Ok(Poll::Wait(future))
    }

    // ---- send() ----------------------------------------------------------------------------

    /// One step of `send()`; `message` is there at the first.
    ///
    /// # Errors
    /// What is wrong with the message; OSError if the client has gone.
    pub fn send(&self, py: Attached, message: Option<Owned>) -> Result<Poll> {
        if let Some(message) = message {
            self.take(py, &message)?;
        } else if self.gone.get() {
            return Err(gone(py));
        }
        let waiting = self.link.borrow().as_ref().map_or(0, |link| link.waiting());
        // After the last message the connection tells its next request, not this one, of room.
        if waiting <= HIGH_WATER || self.stage.get() == Stage::Over {
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
        if self.gone.get() {
            return Err(gone(py));
        }
        if is(py, &kind, &names.response_body) {
            self.send_body(py, &message)
        } else if is(py, &kind, &names.response_start) {
            self.start(py, &message)
        } else if is(py, &kind, &names.response_pathsend) {
            self.send_path(py, &message)
        } else if is(py, &kind, &names.early_hint) {
            self.early_hint(py, &message)
        } else {
            Err(unexpected(py, &kind, self.stage.get()))
        }
    }

    fn start(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if self.stage.get() != Stage::Silent {
            return Err(unexpected(py, &names.response_start, self.stage.get()));
        }
        // Headers may be an iterator, which is the application's code and may come here as well.
        let mut head = self.head.take();
        let (status, length) = encode_head(py, message, &mut head)?;
        if self.stage.get() != Stage::Silent {
            return Err(unexpected(py, &names.response_start, self.stage.get()));
        }
        *self.head.borrow_mut() = head;
        let bodyless = matches!(status, 204 | 304) || self.is_head;
        self.observe(|observation| observation.note_status(status));
        self.declared.set(length.filter(|_| !bodyless));
        self.stage.set(Stage::Head);
        Ok(())
    }

    fn send_body(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if !matches!(self.stage.get(), Stage::Head | Stage::Streaming) {
            return Err(unexpected(py, &names.response_body, self.stage.get()));
        }
        let body = message.bytes(py, &names.body)?;
        let more = message.truth(py, &names.more_body)?;
        let data: &[u8] = match &body {
            // SAFETY: a live bytes object.
            Some(body) => unsafe { bytes_of(body.as_ptr()) },
            None => &[],
        };
        let sent = self.sent.get() + data.len() as u64;
        if let Some(declared) = self.declared.get() {
            if sent > declared {
                let what = "Response content longer than Content-Length";
                return Err(raise(py, Raise::Runtime, what));
            }
            if !more && sent < declared {
                let what = "Response content shorter than Content-Length";
                return Err(raise(py, Raise::Runtime, what));
            }
        }
        self.sent.set(sent);
        self.observe(|observation| observation.note_output(data.len()));
        self.send_data(py, data, !more);
        Ok(())
    }

    /// Sends body bytes, with the head if that has not been sent.
    fn send_data(&self, py: Attached, data: &[u8], last: bool) {
        let mut pieces = data.chunks(LARGEST_PAYLOAD);
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            let next = pieces.next();
            let flags = match next {
                Some(_) => 0,
                None if last => self.end_flags(),
                None => flag::FLUSH,
            };
            let load = if last {
                self.event_loop.load_without_one()
            } else {
                0
            };
            let sent = if self.stage.get() == Stage::Head {
                let mut head = self.head.take();
                reply::finish(&mut head, piece.len(), flags, load);
                self.stage.set(Stage::Streaming);
                self.transmit([&head, piece])
            } else {
                let header = Header {
                    flags,
                    aux: load,
                    ..Header::new(Kind::Data, piece.len() as u32)
                };
                self.transmit([&header.encode(), piece])
            };
            if sent == Sent::Gone {
                self.on_gone(py);
                return;
            }
            match next {
                Some(next) => piece = next,
                None => break,
            }
        }
        if last {
            self.stage.set(Stage::Over);
            self.wake(py, &self.waiters);
            self.reply_ended();
        }
    }

    /// The connection is free for the next request.
    fn reply_ended(&self) {
        if self.body.borrow().asked
            && let Some(link) = &*self.link.borrow()
        {
            link.owes_body.set(true);
        }
        self.event_loop.reply_ended(self.token.get());
    }

    fn end_flags(&self) -> u8 {
        if self.event_loop.ends() {
            flag::END | flag::CLOSE
        } else {
            flag::END
        }
    }

    fn transmit<const N: usize>(&self, pieces: [&[u8]; N]) -> Sent {
        match &*self.link.borrow() {
            Some(link) => link.send(pieces),
            None => Sent::Gone,
        }
    }

    /// `http.response.pathsend`: httpd sends the file.
    fn send_path(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if self.stage.get() != Stage::Head {
            return Err(unexpected(py, &names.response_pathsend, self.stage.get()));
        }
        let Some(path) = message.text(py, &names.path)? else {
            let what = "http.response.pathsend needs 'path', a str";
            return Err(raise(py, Raise::Type, what));
        };
        let (file, length) = match open(path.as_str()) {
            Ok(found) => found,
            Err(error) => return Err(os_error(py, &error, path.as_str())),
        };
        let length = match self.declared.get() {
            Some(declared) if declared > length => {
                let what = "Response content shorter than Content-Length";
                return Err(raise(py, Raise::Runtime, what));
            }
            Some(declared) => declared,
            None => length,
        };
        self.sent.set(length);
        if length == 0 || self.is_head {
            self.send_data(py, &[], true);
            return Ok(());
        }
        let mut head = self.head.take();
        reply::finish(&mut head, 0, 0, 0);
        self.stage.set(Stage::Streaming);
        let load = self.event_loop.load_without_one();
        let range = FileRange { offset: 0, length };
        let frame = range.encode(self.end_flags(), load).to_vec();
        let mut sent = self.transmit([&head]);
        if let (Sent::Accepted, Some(link)) = (sent, &*self.link.borrow()) {
            sent = link.send_file(frame, file);
        }
        if sent == Sent::Gone {
            self.on_gone(py);
            return Ok(());
        }
        self.stage.set(Stage::Over);
        self.wake(py, &self.waiters);
        self.reply_ended();
        Ok(())
    }

    /// `http.response.early_hint`: 103 with `Link` fields (RFC 8297).
    fn early_hint(&self, py: Attached, message: &Message<'_>) -> Result<()> {
        let names = &py.interpreter().asgi().names;
        if self.stage.get() != Stage::Silent {
            return Err(unexpected(py, &names.early_hint, self.stage.get()));
        }
        let Some(links) = message.get(py, &names.links)? else {
            return Ok(());
        };
        // SAFETY: live objects; a tuple of our own.
        let links = unsafe { Owned::from_new(ffi::PySequence_Tuple(links.as_ptr()))? };
        let mut pairs = Vec::new();
        // SAFETY: the items live as long as the tuple.
        unsafe {
            for index in 0..ffi::PyTuple_GET_SIZE(links.as_ptr()) {
                let link = ffi::PyTuple_GET_ITEM(links.as_ptr(), index);
                if ffi::PyBytes_Check(link) == 0 {
                    let what = "items of 'links' must be bytes";
                    return Err(raise(py, Raise::Type, what));
                }
                let value = bytes_of(link);
                if let Err(error) = crate::exchange::response::check_field(b"link", value) {
                    return Err(raise(py, Raise::Value, &error.about(b"link", value)));
                }
                pairs.push(Pair {
                    name: "link".into(),
                    value: Text::new(value),
                });
            }
        }
        let head = ResponseHead {
            status: 103,
            status_line: "103 Early Hints".into(),
            headers: Slice::new(&pairs),
            content_length: -1,
        };
        let mut frame = Vec::new();
        if reply::encode(&head, &mut frame).is_err() {
            return Err(raise(py, Raise::Value, "there are too many links"));
        }
        let header = Header::new(Kind::Interim, (frame.len() - HEADER) as u32);
        frame[..HEADER].copy_from_slice(&header.encode());
        if self.transmit([&frame]) == Sent::Gone {
            self.on_gone(py);
        }
        Ok(())
    }

    // ---- the end ---------------------------------------------------------------------------

    /// The application has returned, or raised `exception`.
    pub fn ended(&self, py: Attached, result: core::result::Result<(), Owned>) {
        let outcome = result.err();
        if !self.gone.get() && self.stage.get() != Stage::Over {
            self.end_unfinished(py, outcome.as_ref());
        } else if let Some(exception) = &outcome {
            self.report(py, exception);
        }
        drop(outcome);
        self.let_go(py);
    }

    /// The response is not complete and will not be.
    #[cold]
    fn end_unfinished(&self, py: Attached, exception: Option<&Owned>) {
        let (status, cancelled) = match (self.cancelled.get(), exception) {
            (Some(Cancelled::Timeout), Some(exception)) if is_cancelled(py, exception) => {
                (504, true)
            }
            (Some(Cancelled::Drain), Some(exception)) if is_cancelled(py, exception) => (503, true),
            _ => (500, false),
        };
        match exception {
            // The body that the client did not send is the client's affair.
            _ if cancelled => {
                if self.cancelled.get() == Some(Cancelled::Timeout) {
                    let line = format!(
                        "{}the request took longer than request-timeout; its task was cancelled",
                        messages::ASGI_TIMEOUT
                    );
                    self.log(Level::Error, line.as_bytes());
                }
            }
            Some(exception) => self.report(py, exception),
            None if self.body.borrow().lost.is_some() => {}
            None => {
                let line = format!(
                    "{}the application '{}' returned before its response was complete; it must \
                     send http.response.start and http.response.body",
                    messages::ASGI_UNFINISHED,
                    self.script(),
                );
                self.log(Level::Error, line.as_bytes());
            }
        }
        let lost = self.body.borrow().lost;
        let status = lost.unwrap_or(status);
        if matches!(self.stage.get(), Stage::Silent | Stage::Head) {
            self.observe(|observation| observation.note_status(status));
        }
        let load = self.event_loop.load_without_one();
        let sent = match self.stage.get() {
            Stage::Silent | Stage::Head => {
                let flags = self.end_flags();
                match &*self.link.borrow() {
                    Some(link) => link.send_header(Kind::Status, flags, status),
                    None => Sent::Gone,
                }
            }
            _ => {
                let header = Header {
                    flags: self.end_flags() | flag::BAD,
                    aux: load,
                    ..Header::new(Kind::Data, 0)
                };
                self.transmit([&header.encode()])
            }
        };
        self.stage.set(Stage::Over);
        if sent == Sent::Accepted {
            self.reply_ended();
        }
    }

    /// The application's startup has failed: that has been logged.
    pub fn refuse(&self, py: Attached) {
        if let Some(link) = &*self.link.borrow() {
            link.send_header(Kind::Status, self.end_flags(), 500);
        }
        self.stage.set(Stage::Over);
        self.reply_ended();
        self.let_go(py);
    }

    /// The application has ignored its cancellation: its answer is not waited for any longer.
    pub fn give_up(&self, py: Attached) {
        if self.cancelled.get() == Some(Cancelled::Gone) {
            let line = format!(
                "{}the task of a request whose client has gone goes on although it was cancelled: {}",
                messages::ASGI_TIMEOUT,
                self.script()
            );
            self.event_loop.house.log(Level::Warning, line.as_bytes());
        } else if !self.gone.get() && self.stage.get() != Stage::Over {
            let line = format!(
                "{}the task of the request goes on although it was cancelled; it is not waited for",
                messages::ASGI_TIMEOUT
            );
            self.log(Level::Error, line.as_bytes());
            let status = match self.cancelled.get() {
                Some(Cancelled::Drain) => 503,
                _ => 504,
            };
            let silent = matches!(self.stage.get(), Stage::Silent | Stage::Head);
            if let Some(link) = &*self.link.borrow() {
                let flags = self.end_flags();
                if silent {
                    link.send_header(Kind::Status, flags, status);
                } else {
                    link.send_header(Kind::Data, flags | flag::BAD, 0);
                }
            }
            self.stage.set(Stage::Over);
            self.reply_ended();
        }
        self.on_gone(py);
        self.let_go(py);
    }

    /// Nothing of the loop's is kept any longer.
    fn let_go(&self, py: Attached) {
        let token = self.token.replace(0);
        if token == 0 {
            return;
        }
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
        let link = self.link.take();
        let application = self.application.take();
        let task = self.task.take();
        self.event_loop.request_ended(self.place.get());
        if let Some(observation) = self.observation.take() {
            observation.end();
        }
        drop(task);
        if let Some(application) = application {
            application.request_ended(py);
        }
        drop(link);
    }

    #[inline]
    fn observe(&self, note: impl FnOnce(&mut TaskObservation)) {
        if let Some(observation) = &mut *self.observation.borrow_mut() {
            note(observation);
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
        // What comes after the reply belongs to no request of the connection any more.
        if !self.event_loop.log_for(self.log_token(), level, None, line) {
            self.event_loop.house.log(level, line);
        }
    }

    fn report(&self, py: Attached, exception: &Owned) {
        // What `send` raises then, or what a framework makes of it: nothing to look after.
        let lost = self.gone.get() || self.body.borrow().lost.is_some();
        if lost && (exceptions::is_os_error(py, exception) || is_disconnect(exception)) {
            return;
        }
        if self.cancelled.get().is_some() && is_cancelled(py, exception) {
            return;
        }
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

/// Replaces `out` by the REPLY of a message that begins a response, without its body; gives the
/// status and the declared length.
///
/// # Errors
/// What is wrong with the message.
pub(super) fn encode_head(
    py: Attached,
    message: &Message<'_>,
    out: &mut Vec<u8>,
) -> Result<(u16, Option<u64>)> {
    let status = message.integer(py, &py.interpreter().asgi().names.status)?;
    let Some(status) = status.filter(|status| (200..=999).contains(status)) else {
        let what = "'status' of a response must be an int from 200 to 999";
        return Err(raise(py, Raise::Value, what));
    };
    let fields = message.headers(py)?;
    let line = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    let pairs = fields.pairs();
    let head = ResponseHead {
        status: status as u16,
        status_line: Text::new(&line),
        headers: Slice::new(&pairs),
        content_length: fields
            .content_length
            .and_then(|length| i64::try_from(length).ok())
            .unwrap_or(-1),
    };
    out.clear();
    if reply::encode(&head, out).is_err() {
        out.clear();
        return Err(raise(
            py,
            Raise::Value,
            "the head of the response is too large",
        ));
    }
    Ok((status as u16, fields.content_length))
}

/// Whether an exception is `asyncio.CancelledError`.
pub fn is_cancelled(py: Attached, exception: &Owned) -> bool {
    let _ = py;
    // SAFETY: a live exception. Its class has that name since 3.8.
    unsafe { crate::python::object::type_name(exception.as_ptr()) == "CancelledError" }
}

/// Starlette's and others' name for it.
fn is_disconnect(exception: &Owned) -> bool {
    // SAFETY: a live exception.
    let name = unsafe { crate::python::object::type_name(exception.as_ptr()) };
    name.contains("ClientDisconnect") || name == "RequestAborted"
}

fn gone(py: Attached) -> Raised {
    raise(py, Raise::Os, "the client has closed the connection")
}

#[cold]
fn unexpected(py: Attached, kind: &Owned, stage: Stage) -> Raised {
    // SAFETY: a live str.
    let kind = unsafe { crate::python::object::latin1_bytes(py, kind.as_ptr()) };
    let kind = match kind {
        Ok(kind) => String::from_utf8_lossy(kind).into_owned(),
        Err(raised) => {
            raised.clear(py);
            "?".to_owned()
        }
    };
    let expected = match stage {
        Stage::Silent => "http.response.start is expected",
        Stage::Head | Stage::Streaming => "http.response.body is expected",
        Stage::Over => "the response is complete",
    };
    raise(
        py,
        Raise::Runtime,
        &format!("Unexpected ASGI message '{kind}': {expected}"),
    )
}

fn open(path: &str) -> std::io::Result<(OwnedFd, u64)> {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        // A FIFO must not stop the loop.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(std::io::Error::from_raw_os_error(if found.is_dir() {
            libc::EISDIR
        } else {
            libc::EINVAL
        }));
    }
    Ok((file.into(), found.len()))
}

/// An OSError of the right class, with the file's name.
fn os_error(py: Attached, error: &std::io::Error, path: &str) -> Raised {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let name = std::ffi::CString::new(path).unwrap_or_default();
    let _ = py;
    // SAFETY: a static class, a C string; the calling thread's errno is set for the call.
    unsafe {
        *libc::__errno_location() = errno;
        ffi::PyErr_SetFromErrnoWithFilename(ffi::PyExc_OSError, name.as_ptr());
    }
    Raised
}
