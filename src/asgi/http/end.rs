//! The end of an HTTP request.

use super::{Cancelled, Http, Stage};
use crate::asgi::link::Sent;
use crate::daemon::wire::{Header, Kind, flag};
use crate::exchange::Level;
use crate::messages;
use crate::python::attach::Attached;
use crate::python::exceptions;
use crate::python::object::Owned;

impl Http {
    /// The application has returned, or raised `exception`.
    pub fn ended(&self, py: Attached, result: core::result::Result<(), Owned>) {
        let outcome = result.err();
        if !self.gone.get() && self.stage.get() != Stage::Over {
            self.end_unfinished(py, outcome.as_ref());
        } else if let Some(exception) = &outcome {
            self.report(py, exception);
        }
        drop(outcome);
        self.let_go(py);
    }

    /// The response is not complete and will not be.
    #[cold]
    fn end_unfinished(&self, py: Attached, exception: Option<&Owned>) {
        let (status, cancelled) = match (self.cancelled.get(), exception) {
            (Some(Cancelled::Timeout), Some(exception)) if is_cancelled(py, exception) => {
                (504, true)
            }
            (Some(Cancelled::Drain), Some(exception)) if is_cancelled(py, exception) => (503, true),
            _ => (500, false),
        };
        match exception {
            // The body that the client did not send is the client's affair.
            _ if cancelled => {
                if self.cancelled.get() == Some(Cancelled::Timeout) {
                    let line = format!(
                        "{}the request took longer than request-timeout; its task was cancelled",
                        messages::ASGI_TIMEOUT
                    );
                    self.log(Level::Error, line.as_bytes());
                }
            }
            Some(exception) => self.report(py, exception),
            None if self.body.borrow().lost.is_some() => {}
            None => {
                let line = format!(
                    "{}the application '{}' returned before its response was complete; it must \
                     send http.response.start and http.response.body",
                    messages::ASGI_UNFINISHED,
                    self.script(),
                );
                self.log(Level::Error, line.as_bytes());
            }
        }
        let lost = self.body.borrow().lost;
        let status = lost.unwrap_or(status);
        if matches!(self.stage.get(), Stage::Silent | Stage::Head) {
            self.observe(|observation| observation.note_status(status));
        }
        let load = self.event_loop.load_without_one();
        let sent = match self.stage.get() {
            Stage::Silent | Stage::Head => {
                let flags = self.end_flags();
                match &*self.link.borrow() {
                    Some(link) => link.send_header(Kind::Status, flags, status),
                    None => Sent::Gone,
                }
            }
            _ => {
                let header = Header {
                    flags: self.end_flags() | flag::BAD,
                    aux: load,
                    ..Header::new(Kind::Data, 0)
                };
                self.transmit([&header.encode()])
            }
        };
        self.stage.set(Stage::Over);
        if sent == Sent::Accepted {
            self.reply_ended();
        }
    }

    /// The application's startup has failed: that has been logged.
    pub fn refuse(&self, py: Attached) {
        if let Some(link) = &*self.link.borrow() {
            link.send_header(Kind::Status, self.end_flags(), 500);
        }
        self.stage.set(Stage::Over);
        self.reply_ended();
        self.let_go(py);
    }

    /// The application has ignored its cancellation: its answer is not waited for any longer.
    pub fn give_up(&self, py: Attached) {
        if self.cancelled.get() == Some(Cancelled::Gone) {
            let line = format!(
                "{}the task of a request whose client has gone goes on although it was cancelled: {}",
                messages::ASGI_TIMEOUT,
                self.script()
            );
            self.event_loop.house.log(Level::Warning, line.as_bytes());
        } else if !self.gone.get() && self.stage.get() != Stage::Over {
            let line = format!(
                "{}the task of the request goes on although it was cancelled; it is not waited for",
                messages::ASGI_TIMEOUT
            );
            self.log(Level::Error, line.as_bytes());
            let status = match self.cancelled.get() {
                Some(Cancelled::Drain) => 503,
                _ => 504,
            };
            let silent = matches!(self.stage.get(), Stage::Silent | Stage::Head);
            if let Some(link) = &*self.link.borrow() {
                let flags = self.end_flags();
                if silent {
                    link.send_header(Kind::Status, flags, status);
                } else {
                    link.send_header(Kind::Data, flags | flag::BAD, 0);
                }
            }
            self.stage.set(Stage::Over);
            self.reply_ended();
        }
        self.on_gone(py);
        self.let_go(py);
    }

    /// Nothing of the loop's is kept any longer.
    fn let_go(&self, py: Attached) {
        let token = self.token.replace(0);
        if token == 0 {
            return;
        }
        self.wake(py, &self.waiters);
        self.wake(py, &self.senders);
        let link = self.link.take();
        let application = self.application.take();
        let task = self.task.take();
        self.event_loop.request_ended(self.place.get());
        if let Some(observation) = self.observation.take() {
            observation.end();
        }
        drop(task);
        if let Some(application) = application {
            application.request_ended(py);
        }
        drop(link);
    }

    fn script(&self) -> String {
        let application = self.application.borrow();
        let path = application
            .as_ref()
            .map(|application| &application.path[..]);
        String::from_utf8_lossy(path.unwrap_or_default()).into_owned()
    }

    fn log(&self, level: Level, line: &[u8]) {
        // What comes after the reply belongs to no request of the connection any more.
        if !self.event_loop.log_for(self.log_token(), level, None, line) {
            self.event_loop.house.log(level, line);
        }
    }

    fn report(&self, py: Attached, exception: &Owned) {
        // What `send` raises then, or what a framework makes of it: nothing to look after.
        let lost = self.gone.get() || self.body.borrow().lost.is_some();
        if lost && (exceptions::is_os_error(py, exception) || is_disconnect(exception)) {
            return;
        }
        if self.cancelled.get().is_some() && is_cancelled(py, exception) {
            return;
        }
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

/// Whether an exception is `asyncio.CancelledError`.
pub fn is_cancelled(py: Attached, exception: &Owned) -> bool {
    let _ = py;
    // SAFETY: a live exception. Its class has that name since 3.8.
    unsafe { crate::python::object::type_name(exception.as_ptr()) == "CancelledError" }
}

/// Starlette's and others' name for it.
fn is_disconnect(exception: &Owned) -> bool {
    // SAFETY: a live exception.
    let name = unsafe { crate::python::object::type_name(exception.as_ptr()) };
    name.contains("ClientDisconnect") || name == "RequestAborted"
}
