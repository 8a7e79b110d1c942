//! The end of the application of a WebSocket.

use super::{INTERNAL_ERROR, Session, Stage};
use crate::asgi::http::is_cancelled;
use crate::daemon::wire::{Kind, flag};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::Attached;
use crate::python::exceptions;
use crate::python::object::Owned;

impl Session {
    /// The application's startup has failed.
    pub fn refuse(&self, py: Attached) {
        self.end_with_status(py, 500);
        self.let_go(py);
    }

    /// The application has returned, or raised an exception.
    pub fn ended(&self, py: Attached, result: core::result::Result<(), Owned>) {
        let is_quiet = |exception: &Owned| {
            (self.disconnect.borrow().is_some()
                && (exceptions::is_os_error(py, exception) || is_disconnect(exception)))
                || (self.cancelled_at.get().is_some() && is_cancelled(py, exception))
        };
        let failed = match &result {
            Ok(()) => false,
            Err(exception) => {
                if !is_quiet(exception) {
                    self.report(py, exception);
                }
                true
            }
        };
        match self.stage.get() {
            Stage::Asking if failed => self.end_with_status(py, 500),
            Stage::Asking => {
                let line = format!(
                    "{}the application '{}' returned before it had answered the handshake of a \
                     WebSocket",
                    messages::ASGI_UNFINISHED,
                    self.script(),
                );
                self.log(Level::Error, line.as_bytes());
                self.end_with_status(py, 500);
            }
            Stage::Denying => self.end_with_status(py, 500),
            Stage::DenyingBody => {
                if let Some(link) = &*self.link.borrow() {
                    link.send_header(Kind::Data, flag::END | flag::BAD, 0);
                }
                self.answered(py);
            }
            Stage::Open => {
                let code = if failed { INTERNAL_ERROR } else { 1000 };
                self.close(py, code, "");
            }
            Stage::Closing | Stage::Over => {}
        }
        drop(result);
        self.let_go(py);
    }

    /// The application has done with it: the connection may still wait for the client's close.
    pub(super) fn let_go(&self, py: Attached) {
        let token = self.token.replace(0);
        if token == 0 {
            return;
        }
        self.queue.borrow_mut().clear();
        self.queued_bytes.set(0);
        let application = self.application.take();
        let task = self.task.take();
        self.count_out();
        if self.stage.get() == Stage::Over {
            drop(self.link.take());
        } else {
            self.read_on();
        }
        drop(task);
        if let Some(application) = application {
            application.request_ended(py);
        }
    }

    pub(super) fn script(&self) -> String {
        let application = self.application.borrow();
        let path = application
            .as_ref()
            .map(|application| &application.path[..]);
        String::from_utf8_lossy(path.unwrap_or_default()).into_owned()
    }

    pub(super) fn log(&self, level: Level, line: &[u8]) {
        if !self.event_loop.log_for(self.log_token(), level, None, line) {
            self.event_loop.house.log(level, line);
        }
    }

    fn report(&self, py: Attached, exception: &Owned) {
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

/// Starlette's and others' name for it.
fn is_disconnect(exception: &Owned) -> bool {
    // SAFETY: a live exception.
    let name = unsafe { crate::python::object::type_name(exception.as_ptr()) };
    name.contains("Disconnect")
}
