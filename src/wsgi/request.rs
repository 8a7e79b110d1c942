//! What the objects of one request share while it lasts.

use core::cell::Cell;

use super::body::Body;
use crate::exchange::{ClientGone, Exchange, Level, Send, memory::Borrowed};
use crate::metrics::observation::Observation;
use crate::python::attach::Attached;
use crate::python::raise::{Kind, Result, raise};
use crate::python::request::{Leased, RequestCore};

/// Up to this size response data is copied while attached, which spares a second attach to
/// release it; above, it is lent.
pub const COPY_LIMIT: usize = 16 * 1024;

/// One request. Lives on the stack of the thread that serves it; the objects that the application
/// gets point to it and are cleared before it goes.
pub struct RequestState {
    /// The exchange and who may use it.
    pub core: RequestCore,
    /// The body.
    pub body: Body,
    /// What has become of the response.
    pub response: Progress,
    /// Where the request is measured, if anybody wants to know.
    observation: Cell<Option<&'static Observation>>,
}

/// How far the response is. Touched only while attached.
#[derive(Default)]
pub struct Progress {
    /// The application has been called, or is about to be.
    pub called: Cell<bool>,
    /// `start_response` has been called.
    pub started: Cell<bool>,
    /// Something has been sent, so the head cannot change any more.
    pub head_sent: Cell<bool>,
    /// The method is HEAD.
    pub head_request: bool,
    /// The status, once `started`.
    pub status: Cell<u16>,
    /// The declared Content-Length.
    pub declared: Cell<Option<u64>>,
    /// Body bytes handed on.
    pub sent: Cell<u64>,
    /// The client is gone.
    pub client_gone: Cell<bool>,
}

impl Progress {
    /// How many of `length` bytes may still be sent.
    pub fn allowed(&self, length: usize) -> usize {
        match self.declared.get() {
            Some(declared) => {
                let left = declared.saturating_sub(self.sent.get());
                length.min(usize::try_from(left).unwrap_or(usize::MAX))
            }
            None => length,
        }
    }

    /// Whether everything that was declared has been sent.
    pub fn is_full(&self) -> bool {
        self.declared
            .get()
            .is_some_and(|declared| self.sent.get() >= declared)
    }

    /// Bytes missing if the response ended now.
    pub fn missing(&self) -> Option<(u64, u64)> {
        let declared = self.declared.get()?;
        let sent = self.sent.get();
        // RFC 9110 section 8.6: these may declare the length of a body that they do not have.
        let bodyless = self.head_request || matches!(self.status.get(), 204 | 304);
        (sent < declared && !bodyless).then_some((declared, sent))
    }
}

impl RequestState {
    /// A request over `exchange`; `head_request` says that its method is HEAD.
    ///
    /// # Safety
    /// `exchange` outlives the state.
    pub unsafe fn new(exchange: &dyn Exchange, head_request: bool) -> Self {
        let response = Progress {
            head_request,
            ..Progress::default()
        };
        RequestState {
            // SAFETY: passed on.
            core: unsafe { RequestCore::new(exchange) },
            body: Body::default(),
            response,
            observation: Cell::new(None),
        }
    }

    /// The request is observed from now on. Called before the application is.
    #[inline]
    pub fn observe(&self, observation: Option<&'static Observation>) {
        self.observation.set(observation);
        self.body.observation.set(observation);
    }

    /// Where the request is measured, if anybody wants to know.
    #[inline]
    pub fn observation(&self) -> Option<&'static Observation> {
        self.observation.get()
    }

    /// Sends one block of the response, now.
    ///
    /// # Errors
    /// Raises RuntimeError if `start_response` has not been called. A client that has gone is no
    /// error: it is noted in `response.client_gone`.
    pub fn send_block(&self, py: Attached, data: &[u8], how: Send) -> Result<()> {
        self.require_start(py)?;
        let exchange = self.core.exchange(py)?;
        let data = &data[..self.response.allowed(data.len())];
        if data.len() <= COPY_LIMIT {
            exchange.append(data);
        } else {
            // The caller keeps the object alive during this call.
            exchange.append_borrowed(Borrowed::new(data));
        }
        self.note_sent(data.len() as u64);
        self.hand_on(py, &exchange, how);
        Ok(())
    }

    /// Passes on what was appended, detached.
    pub fn hand_on(&self, py: Attached, exchange: &Leased<'_>, how: Send) {
        self.response.head_sent.set(true);
        let observation = self.observation.get();
        let send = |may_block: &_| match observation {
            Some(observation) => observation.sends(|| exchange.send(how, may_block)),
            None => exchange.send(how, may_block),
        };
        if py.detached(send) == Err(ClientGone) {
            self.response.client_gone.set(true);
        }
    }

    /// Counts a block of so many bytes as sent.
    pub fn note_sent(&self, bytes: u64) {
        let sent = &self.response.sent;
        sent.set(sent.get() + bytes);
        if let Some(observation) = self.observation.get() {
            observation.note_output(bytes);
        }
    }

    /// Raises if `start_response` has not been called.
    pub fn require_start(&self, py: Attached) -> Result<()> {
        if self.response.started.get() {
            return Ok(());
        }
        Err(raise(
            py,
            Kind::Runtime,
            "the response has no head: start_response was not called before the first data",
        ))
    }

    /// Logs a line for this request.
    pub fn log(&self, py: Attached, level: Level, line: &str) {
        py.detached(|_| self.core.log(level, line.as_bytes()));
    }
}
