//! What comes over a connection: requests, their bodies, the bytes of tunnels, the end.

use std::rc::Rc;
use std::sync::Arc;

use super::application::{self, Missing};
use super::awaitable::{self, Endpoint};
use super::event_loop::EventLoop;
use super::house::{Admission, Returned};
use super::http::Http;
use super::link::{Got, Link, Phase};
use super::scope;
use super::websocket::Session;
use crate::daemon::wire::request::{self, WireRequest};
use crate::daemon::wire::{HEADER, Header, Kind, Refused, VERSION, flag};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Source, Wait};
use crate::messages;
use crate::python::attach::Attached;
use crate::python::raise::Result;
use crate::python::request::RequestCore;
use crate::websocket::handshake;

/// Reads and does what is to be done. `at_end`: the peer is known to have closed.
pub fn read(event_loop: &'static EventLoop, py: Attached, link: &Rc<Link>, at_end: bool) {
    let mut buffer = event_loop.take_buffer();
    for round in 0.. {
        if link.is_closed() {
            break;
        }
        if round == ROUNDS {
            // Others have their turn.
            event_loop.look_again(link.token);
            break;
        }
        let phase = link.phase.borrow().clone();
        let goes_on = match &phase {
            Phase::Idle if link.owes_body.get() => skip_body(event_loop, py, link, &mut buffer),
            Phase::Idle => read_request(event_loop, py, link, &mut buffer),
            Phase::Closing => read_nothing(event_loop, link, &mut buffer),
            Phase::Http(http) => read_body(event_loop, py, link, http, &mut buffer),
            Phase::WebSocket(session) => read_tunnel(event_loop, py, link, session, &mut buffer),
        };
        match goes_on {
            Goes::On => {}
            // Edge-triggered: what comes from now on is reported.
            Goes::Waits if at_end => {}
            Goes::Waits | Goes::Stopped => break,
        }
    }
    event_loop.give_buffer(buffer);
}

/// So often is read from one connection before others have their turn.
const ROUNDS: u32 = 2;

/// Whether there may be more to read.
enum Goes {
    /// There may be.
    On,
    /// All that had come has been taken.
    Waits,
    /// What there is must not be taken now, or there never will be anything.
    Stopped,
}

fn read_request(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    buffer: &mut [u8],
) -> Goes {
    if !event_loop.may_begin(link) {
        return Goes::Stopped;
    }
    if link.input.borrow().is_empty() {
        let count = match link.read(buffer) {
            Got::Bytes(count) => count,
            Got::Nothing => return Goes::Stopped,
            Got::End => {
                event_loop.on_end(py, link);
                return Goes::Stopped;
            }
        };
        let all = count < buffer.len();
        match whole(&buffer[..count]) {
            Whole::Yes => begin(event_loop, py, link, &buffer[..count]),
            Whole::NotYet => {
                link.input.borrow_mut().extend_from_slice(&buffer[..count]);
            }
            Whole::Never(why) => refuse(event_loop, link, why),
        }
        return if all { Goes::Waits } else { Goes::On };
    }
    let judged = whole(&link.input.borrow());
    match judged {
        Whole::Yes => {
            let frame = link.input.take();
            begin(event_loop, py, link, &frame);
            Goes::On
        }
        Whole::NotYet => match link.read(buffer) {
            Got::Bytes(count) => {
                link.input.borrow_mut().extend_from_slice(&buffer[..count]);
                Goes::On
            }
            Got::Nothing => Goes::Stopped,
            Got::End => {
                event_loop.on_end(py, link);
                Goes::Stopped
            }
        },
        Whole::Never(why) => {
            refuse(event_loop, link, why);
            Goes::Stopped
        }
    }
}

/// A body that was asked for by a request that is over.
#[cold]
fn skip_body(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    buffer: &mut [u8],
) -> Goes {
    let header = Header::peek(&link.input.borrow());
    match header {
        Some(Ok(header)) if matches!(header.kind, Kind::Body | Kind::BodyFailed) => {
            let length = HEADER + header.length as usize;
            let mut input = link.input.borrow_mut();
            if input.len() >= length {
                input.drain(..length);
                let ends = flag::END | flag::GRANT_DONE;
                if header.kind == Kind::BodyFailed || header.flags & ends != 0 {
                    link.owes_body.set(false);
                }
                return Goes::On;
            }
        }
        // It has not been asked after all, or says something else: judged as usual.
        Some(_) => {
            link.owes_body.set(false);
            return Goes::On;
        }
        None => {}
    }
    match link.read(buffer) {
        Got::Bytes(count) => {
            link.input.borrow_mut().extend_from_slice(&buffer[..count]);
            Goes::On
        }
        Got::Nothing => Goes::Stopped,
        Got::End => {
            event_loop.on_end(py, link);
            Goes::Stopped
        }
    }
}

/// Nothing that comes means anything any more.
#[cold]
fn read_nothing(event_loop: &EventLoop, link: &Rc<Link>, buffer: &mut [u8]) -> Goes {
    match link.read(buffer) {
        Got::Bytes(_) => Goes::On,
        Got::Nothing => Goes::Stopped,
        Got::End => {
            event_loop.remove(link);
            Goes::Stopped
        }
    }
}

/// Whether bytes are a whole request.
enum Whole {
    Yes,
    NotYet,
    Never(Refused),
}

fn whole(bytes: &[u8]) -> Whole {
    match Header::peek(bytes) {
        None => Whole::NotYet,
        Some(Ok(header)) if header.kind == Kind::Request && header.aux != VERSION => {
            Whole::Never(Refused::Version)
        }
        Some(Ok(header)) if header.kind == Kind::Request => {
            let length = HEADER + header.length as usize;
            match bytes.len().cmp(&length) {
                core::cmp::Ordering::Less => Whole::NotYet,
                core::cmp::Ordering::Equal => Whole::Yes,
                core::cmp::Ordering::Greater => Whole::Never(Refused::Malformed),
            }
        }
        Some(_) => Whole::Never(Refused::Malformed),
    }
}

#[cold]
fn refuse(event_loop: &EventLoop, link: &Link, why: Refused) {
    let (code, what) = match why {
        Refused::Version => (
            messages::WORKER_VERSION,
            "httpd's module speaks another version of the protocol than this gateway; install both \
             from one build and restart httpd",
        ),
        _ => (
            messages::WORKER_MALFORMED,
            "bytes came that are no request; is something else than httpd connected?",
        ),
    };
    let line = format!("{code}{what}");
    event_loop.house.log(Level::Error, line.as_bytes());
    link.send_header(Kind::Retry, flag::CLOSE, why as u16);
    event_loop.remove(link);
}

fn read_body(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    http: &Arc<Http>,
    buffer: &mut [u8],
) -> Goes {
    let count = match link.read(buffer) {
        Got::Bytes(count) => count,
        Got::Nothing => return Goes::Stopped,
        Got::End => {
            event_loop.on_end(py, link);
            return Goes::Stopped;
        }
    };
    let mut input = link.input.take();
    input.extend_from_slice(&buffer[..count]);
    let mut at = 0;
    while let Some(header) = Header::peek(&input[at..]) {
        let valid = match header {
            Ok(header) => {
                let end = at + HEADER + header.length as usize;
                if input.len() < end {
                    break;
                }
                let payload = &input[at + HEADER..end];
                at = end;
                http.on_frame(py, header, payload)
            }
            Err(_) => false,
        };
        if !valid {
            // As if the peer had gone: what it sends cannot be understood.
            event_loop.on_end(py, link);
            return Goes::Stopped;
        }
    }
    input.drain(..at);
    if !link.is_closed() {
        *link.input.borrow_mut() = input;
    }
    if count < buffer.len() {
        Goes::Waits
    } else {
        Goes::On
    }
}

fn read_tunnel(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    session: &Arc<Session>,
    buffer: &mut [u8],
) -> Goes {
    if !session.has_room() {
        link.stopped.set(true);
        return Goes::Stopped;
    }
    match link.read(buffer) {
        Got::Bytes(count) => {
            session.on_bytes(py, &buffer[..count]);
            Goes::On
        }
        Got::Nothing => Goes::Stopped,
        Got::End => {
            event_loop.on_end(py, link);
            Goes::Stopped
        }
    }
}

/// A whole request has come.
fn begin(event_loop: &'static EventLoop, py: Attached, link: &Rc<Link>, frame: &[u8]) {
    let begun = match Header::peek(frame) {
        Some(Ok(header)) => request::decode(header, &frame[HEADER..], |request| {
            accept(event_loop, py, link, request, frame);
        })
        .is_ok(),
        _ => false,
    };
    if !begun {
        refuse(event_loop, link, Refused::Malformed);
    }
}

fn accept(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    request: &WireRequest<'_>,
    frame: &[u8],
) {
    if event_loop.ends() {
        link.send_header(Kind::Retry, flag::CLOSE, Refused::Draining as u16);
        event_loop.remove(link);
        return;
    }
    // A connection of a worker may serve one group after another.
    if request.head.site.application_group.bytes() != event_loop.interpreter.group() {
        return give_back(event_loop, link, frame, Returned::Elsewhere);
    }
    match event_loop.house.admit(request) {
        Admission::Start => {}
        Admission::Refuse(why) => {
            link.send_header(Kind::Retry, 0, why as u16);
            return;
        }
        Admission::Wait => return give_back(event_loop, link, frame, Returned::Limit),
    }
    let exchange = LogOnly {
        link,
        level: request.log_level,
    };
    let found = {
        // SAFETY: the exchange outlives the core.
        let core = unsafe { RequestCore::new(&exchange) };
        core.enter();
        let found = application::find(py, event_loop, &core, request);
        core.end();
        core.leave(py);
        found
    };
    let application = match found {
        Ok(application) => application,
        Err(Missing::Failed) => {
            event_loop.house.finished();
            let flags = if event_loop.ends() {
                flag::END | flag::CLOSE
            } else {
                flag::END
            };
            link.send_header(Kind::Status, flags, 500);
            return;
        }
        Err(Missing::Stale) => return give_back(event_loop, link, frame, Returned::Stale),
        Err(Missing::NotAsgi) => return give_back(event_loop, link, frame, Returned::NotAsgi),
    };
    if let Err(raised) = serve(event_loop, py, link, request, &application) {
        // No memory for a scope.
        raised.clear(py);
        event_loop.house.finished();
        link.send_header(Kind::Status, flag::END, 500);
    }
}

fn serve(
    event_loop: &'static EventLoop,
    py: Attached,
    link: &Rc<Link>,
    request: &WireRequest<'_>,
    application: &Arc<application::Application>,
) -> Result<()> {
    let head = &request.head;
    let headers = || {
        let items = head.headers.items().iter();
        items.map(|pair| (pair.name.bytes(), pair.value.bytes()))
    };
    let state = application.state(py);
    let (endpoint, scope) = match handshake::parse(head.method.bytes(), headers()) {
        Err(handshake::Refusal::NotWebSocket) => {
            let scope = scope::make(py, &scope::Kind::Http, head, &state)?;
            let http = Arc::new(Http::new(
                event_loop,
                Rc::clone(link),
                Arc::clone(application),
                request,
            ));
            (Endpoint::Http(http), scope)
        }
        Err(handshake::Refusal::BadRequest(why)) => {
            Session::reject(event_loop, link, 400, why);
            return Ok(());
        }
        Err(handshake::Refusal::Version) => {
            Session::reject(event_loop, link, 426, "");
            return Ok(());
        }
        Ok(_) if !request.target.asgi.websocket => {
            Session::reject(event_loop, link, 403, "");
            return Ok(());
        }
        Ok(offer) => {
            let offered: Vec<&str> = offer.subprotocols().collect();
            let kind = scope::Kind::WebSocket(&offered);
            let scope = scope::make(py, &kind, head, &state)?;
            let session = Arc::new(Session::new(
                event_loop,
                Rc::clone(link),
                Arc::clone(application),
                &offer,
                request.target.asgi,
            ));
            (Endpoint::WebSocket(session), scope)
        }
    };
    event_loop.begins(link, &endpoint);
    let channels = || -> Result<_> {
        Ok((
            awaitable::channel(py, endpoint.clone(), false)?,
            awaitable::channel(py, endpoint.clone(), true)?,
        ))
    };
    match channels() {
        Ok((receive, send)) => application.serve(py, endpoint, [scope, receive, send]),
        Err(raised) => {
            let exception = raised.take(py);
            match &endpoint {
                Endpoint::Http(http) => http.ended(py, Err(exception)),
                Endpoint::WebSocket(session) => session.ended(py, Err(exception)),
            }
        }
    }
    Ok(())
}

/// The request is not for this loop, or not now.
#[cold]
fn give_back(event_loop: &EventLoop, link: &Rc<Link>, frame: &[u8], why: Returned) {
    if let Some(socket) = link.into_socket() {
        event_loop.remove(link);
        event_loop.house.take_back(socket, frame.to_vec(), why);
    }
}

/// What loading a script needs of a request: where to log.
struct LogOnly<'a> {
    link: &'a Rc<Link>,
    level: u8,
}

impl Exchange for LogOnly<'_> {
    fn read(&self, _: &mut [u8], _: Wait<'_>) -> core::result::Result<usize, BodyError> {
        Ok(0)
    }

    fn start(&self, _: &ResponseHead<'_>) {}

    fn append(&self, _: &[u8]) {}

    fn append_borrowed(&self, _: Borrowed) {}

    fn append_file(&self, _: i32, _: u64, _: u64) -> core::result::Result<(), i32> {
        Err(libc::ENOSYS)
    }

    fn send(&self, _: Send, _: &MayBlock) -> core::result::Result<(), ClientGone> {
        Err(ClientGone)
    }

    fn abort(&self, _: &MayBlock) {}

    fn log(&self, level: Level, foreign: bool, line: &[u8]) {
        // A thread that an import has started: the connection is not its own.
        if foreign || !self.link.log(level, None, line) {
            crate::python::runtime::log_bytes(level, line);
        }
    }

    fn log_from(&self, level: Level, foreign: bool, source: Source<'_>, line: &[u8]) {
        if foreign || !self.link.log(level, Some(source), line) {
            crate::python::runtime::log_bytes(level, line);
        }
    }

    fn logs(&self, level: Level, _: bool) -> bool {
        level as u8 <= self.level
    }

    fn client_gone(&self) -> bool {
        false
    }
}
