//! The tunnel to the client of a WebSocket: bytes come and go.

use std::time::Instant;

use super::{Session, Stage};
use crate::asgi::link::Sent;
use crate::daemon::wire::{Header, Kind, flag};
use crate::python::attach::Attached;
use crate::websocket::Event;

/// Bytes of messages that wait for the application, beside their number.
const QUEUE_BYTES: usize = 1024 * 1024;

impl Session {
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
    pub(super) fn unsent(&self) -> usize {
        self.link.borrow().as_ref().map_or(0, |link| link.waiting())
    }

    /// Sends bytes for the client.
    pub(super) fn transmit(&self, py: Attached, data: &[u8], flags: u8) {
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

    /// Reading had stopped for want of room, and there is room again.
    pub(super) fn read_on(&self) {
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
    pub(super) fn look_again(&self) {
        if let Some(link) = &*self.link.borrow()
            && link.stopped.replace(false)
        {
            self.event_loop.look_again(link.token);
        }
    }
}
