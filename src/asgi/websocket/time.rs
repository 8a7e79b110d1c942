//! What takes its time in a WebSocket: looked at about every second.

use std::time::{Duration, Instant};

use super::{INTERNAL_ERROR, Session, Stage};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::Attached;

/// How long the client may take to answer our close.
const CLOSING: Duration = Duration::from_secs(5);
/// How long an application may go on when its WebSocket is over.
const GONE_GRACE: Duration = Duration::from_secs(5);

impl Session {
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
}
