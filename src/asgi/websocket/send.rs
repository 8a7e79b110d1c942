//! `send()` of a WebSocket.

use super::{Session, Stage};
use crate::asgi::awaitable::Poll;
use crate::asgi::http::encode_head;
use crate::asgi::link::HIGH_WATER;
use crate::asgi::message::{Message, is};
use crate::daemon::wire::LARGEST;
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes_of};
use crate::python::raise::{Kind as Raise, Raised, Result, raise};
use crate::websocket::is_close_code;

/// No larger message is sent: what fits into a frame of the wire.
const LARGEST_MESSAGE: usize = LARGEST as usize - 1024;

impl Session {
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

#[cold]
fn too_large(py: Attached) -> Raised {
    let what = format!("a message of a WebSocket must not be larger than {LARGEST_MESSAGE} bytes");
    raise(py, Raise::Value, &what)
}

fn gone(py: Attached) -> Raised {
    raise(py, Raise::Os, "the WebSocket is closed")
}
