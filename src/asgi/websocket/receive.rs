//! `receive()` of a WebSocket.

use pyo3::ffi;

use super::Session;
use crate::asgi::awaitable::Poll;
use crate::asgi::state::dict;
use crate::python::attach::Attached;
use crate::python::object::{Owned, bytes, int};
use crate::python::raise::Result;
use crate::websocket::Event;

impl Session {
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
