//! The end of the connection of a WebSocket.

use std::time::Instant;

use super::{ABNORMAL, SERVICE_RESTART, Session, Stage};
use crate::asgi::link::Phase;
use crate::daemon::wire::flag;
use crate::python::attach::Attached;

impl Session {
    /// Sends a close frame; the client's answer ends the connection.
    pub(super) fn close(&self, py: Attached, code: u16, reason: &str) {
        let mut out = Vec::new();
        if let Some(protocol) = &mut *self.protocol.borrow_mut() {
            protocol.close(code, reason, &mut out);
        }
        self.stage.set(Stage::Closing);
        self.closing_since.set(Some(Instant::now()));
        self.transmit(py, &out, 0);
        self.look_again();
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

    /// All is said: sends the last bytes, and has httpd close the connection.
    pub(super) fn finish(&self, py: Attached, last: &[u8]) {
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
}
