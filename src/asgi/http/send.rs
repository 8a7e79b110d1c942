//! `send()` of an HTTP request: its response.

use super::{Http, Stage, Trailers};
use crate::asgi::awaitable::Poll;
use crate::asgi::link::{HIGH_WATER, Sent};
use crate::asgi::message::{Message, is};
use crate::daemon::wire::{Header, Kind, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Slice, Text};
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of};
use crate::python::raise::{Kind as Raise, Raised, Result, raise};

/// A frame carries no more of a body than this.
const LARGEST_PAYLOAD: usize = 16 * 1024 * 1024;

impl Http {
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
        } else if is(py, &kind, &names.response_trailers) {
            self.send_trailers(py, &message)
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
        let announced = message.truth(py, &names.trailers)?;
        if self.stage.get() != Stage::Silent {
            return Err(unexpected(py, &names.response_start, self.stage.get()));
        }
        *self.head.borrow_mut() = head;
        let bodyless = matches!(status, 204 | 304) || self.is_head;
        self.observe(|observation| observation.note_status(status));
        self.declared.set(length.filter(|_| !bodyless));
        self.trailers.set(match announced {
            true if self.has_trailers && !bodyless => Trailers::Sent,
            true => Trailers::Dropped,
            false => Trailers::None,
        });
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

    /// Sends body bytes, with the head if that has not been sent. After the last ones the response
    /// is complete, unless trailers are to come.
    pub(super) fn send_data(&self, py: Attached, data: &[u8], last: bool) {
        let ends = last && self.trailers.get() == Trailers::None;
        let mut pieces = data.chunks(LARGEST_PAYLOAD);
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            let next = pieces.next();
            let flags = match next {
                Some(_) => 0,
                None if ends => self.end_flags(),
                None => flag::FLUSH,
            };
            let load = if ends {
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
        if last && !ends {
            self.stage.set(Stage::Trailers);
        } else if last {
            self.stage.set(Stage::Over);
            self.wake(py, &self.waiters);
            self.reply_ended();
        }
    }

    /// The connection is free for the next request.
    pub(super) fn reply_ended(&self) {
        if self.body.borrow().asked
            && let Some(link) = &*self.link.borrow()
        {
            link.owes_body.set(true);
        }
        self.event_loop.reply_ended(self.token.get());
    }

    pub(super) fn end_flags(&self) -> u8 {
        if self.event_loop.ends() {
            flag::END | flag::CLOSE
        } else {
            flag::END
        }
    }
}

/// Replaces `out` by the REPLY of a message that begins a response, without its body; gives the
/// status and the declared length.
///
/// # Errors
/// What is wrong with the message.
pub(in crate::asgi) fn encode_head(
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

fn gone(py: Attached) -> Raised {
    raise(py, Raise::Os, "the client has closed the connection")
}

#[cold]
pub(super) fn unexpected(py: Attached, kind: &Owned, stage: Stage) -> Raised {
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
        Stage::Trailers => "http.response.trailers is expected",
        Stage::Over => "the response is complete",
    };
    raise(
        py,
        Raise::Runtime,
        &format!("Unexpected ASGI message '{kind}': {expected}"),
    )
}
