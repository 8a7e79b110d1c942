//! The waist over `request_rec`: one request of httpd as a gateway sees it.
//!
//! * [`head`]: what was asked, built on the stack from httpd's own strings.
//! * [`body`]: the request's body, read lazily through the input filters.
//! * [`front`]: what the client of daemon mode asks beyond the waist.
//! * [`interim`]: responses before the response.
//! * [`response`]: status, headers and body, into one brigade that is reused.
//! * [`table`]: the functions of the C ABI.

pub mod body;
pub mod front;
pub mod head;
pub mod interim;
pub mod response;
pub mod table;

use core::cell::Cell;

use self::body::BodyState;
use self::response::{Replacement, StoredHead};
use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Source, Wait};
use crate::httpd::apache::{Brigade, Request, Server};

/// What is configured for a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseRules {
    /// `WSGIEnableSendfile`.
    pub sendfile: bool,
    /// `WSGIErrorOverride`.
    pub error_override: bool,
    /// `WSGILocalRedirect`.
    pub local_redirect: bool,
}

/// The exchange of one request. It lives on the stack of the handler.
///
/// The gateway calls it from one thread at a time, hence the cells; only [`Exchange::log`] for a
/// foreign thread may run beside another call, and that touches nothing but `server`.
pub struct HttpdExchange<'r> {
    request: Request<'r>,
    server: Server<'r>,
    rules: ResponseRules,
    body: BodyState<'r>,
    output: Cell<Option<Brigade<'r>>>,
    head: Cell<Option<StoredHead>>,
    /// What takes the response's place.
    replacement: Cell<Option<Replacement>>,
    /// Something was handed to the output filters.
    sent: Cell<bool>,
    /// A part of the body was left out: only the head is wanted.
    discarded: Cell<bool>,
    /// The end of the response was handed on.
    ended: Cell<bool>,
    client_gone: Cell<bool>,
    /// A filter has answered the request itself.
    filter_error: Cell<bool>,
    /// The connection is a tunnel that goes on when the handler has returned.
    parked: Cell<bool>,
}

impl<'r> HttpdExchange<'r> {
    /// The exchange of `request`, whose body has been set up.
    #[inline]
    pub fn new(request: Request<'r>, rules: ResponseRules) -> Self {
        HttpdExchange {
            request,
            server: request.server(),
            rules,
            body: BodyState::new(),
            output: Cell::new(None),
            head: Cell::new(None),
            replacement: Cell::new(None),
            sent: Cell::new(false),
            discarded: Cell::new(false),
            ended: Cell::new(false),
            client_gone: Cell::new(false),
            filter_error: Cell::new(false),
            parked: Cell::new(false),
        }
    }

    /// Whether a filter has answered the request itself; the handler must then say so.
    pub fn filter_error(&self) -> bool {
        self.filter_error.get()
    }

    /// Whether the request goes on when the handler has returned, who must say so.
    pub fn is_parked(&self) -> bool {
        self.parked.get()
    }

    /// Whether anything was handed to the output filters.
    pub fn has_sent(&self) -> bool {
        self.sent.get()
    }
}

impl Exchange for HttpdExchange<'_> {
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError> {
        self.read_body(buffer, matches!(wait, Wait::Yes(_)))
    }

    fn start(&self, head: &ResponseHead<'_>) {
        let head = StoredHead::copy(head, self.request.pool());
        self.replacement.set(head.replacement(self.rules));
        self.head.set(Some(head));
    }

    fn append(&self, data: &[u8]) {
        self.brigade().append_copy(data);
    }

    fn append_borrowed(&self, data: Borrowed) {
        // SAFETY: `Borrowed` is the promise that the data stays until the next `send` or `abort`,
        // both of which pass the brigade.
        unsafe { self.brigade().append_borrowed(data.as_ptr(), data.len()) }
    }

    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32> {
        self.append_range(fd, offset, length, true)
    }

    fn send(&self, how: Send, _: &MayBlock) -> Result<(), ClientGone> {
        self.send_appended(how)
    }

    fn abort(&self, _: &MayBlock) {
        self.cut();
    }

    fn log(&self, level: Level, foreign: bool, line: &[u8]) {
        if foreign {
            self.server.log(level, line);
        } else {
            self.request.log(level, line);
        }
    }

    fn log_from(&self, level: Level, foreign: bool, source: Source<'_>, line: &[u8]) {
        if foreign {
            self.server.log_from(level, source, line);
        } else {
            self.request.log_from(level, source, line);
        }
    }

    fn logs(&self, level: Level, foreign: bool) -> bool {
        if foreign {
            self.server.logs(level)
        } else {
            self.request.logs(level)
        }
    }

    fn client_gone(&self) -> bool {
        self.client_gone.get() || self.request.connection().aborted()
    }
}
