//! `receive()` of an HTTP request: its body.

use super::{Http, Stage};
use crate::asgi::awaitable::Poll;
use crate::asgi::state::dict;
use crate::daemon::wire::{Header, Kind, Read, flag};
use crate::python::attach::Attached;
use crate::python::object::{boolean, bytes};
use crate::python::raise::Result;

/// What is asked for at once of a request's body.
const WINDOW: u32 = 64 * 1024;

impl Http {
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
}
