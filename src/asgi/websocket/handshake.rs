//! The answer to the handshake of a WebSocket.

use std::rc::Rc;
use std::time::Instant;

use super::{ABNORMAL, Session, Stage};
use crate::asgi::event_loop::EventLoop;
use crate::asgi::link::{Link, Sent};
use crate::asgi::message::{Fields, Message};
use crate::daemon::wire::{HEADER, Header, Kind, flag, reply};
use crate::exchange::response::ResponseHead;
use crate::exchange::{Pair, Slice, Text};
use crate::python::attach::Attached;
use crate::python::object::bytes_of;
use crate::python::raise::{Kind as Raise, Result, raise};
use crate::websocket::handshake::VERSION;
use crate::websocket::{Connection, Limits};

impl Session {
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

    pub(super) fn accept(&self, py: Attached, message: &Message<'_>) -> Result<()> {
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

    pub(super) fn deny(&self, py: Attached, message: &Message<'_>) -> Result<()> {
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

    pub(super) fn end_with_status(&self, py: Attached, status: u16) {
        if let Some(link) = &*self.link.borrow() {
            link.send_header(Kind::Status, flag::END, status);
        }
        self.answered(py);
    }

    /// The handshake has been answered with a whole HTTP response.
    pub(super) fn answered(&self, py: Attached) {
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
}
