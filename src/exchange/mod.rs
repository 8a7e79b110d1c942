//! The narrow waist between a server (httpd, later the daemon's wire) and a Python gateway.
//!
//! Nothing in here knows httpd or Python. [`Exchange`] is one request as the gateway sees it;
//! [`RequestHead`] is what it was asked; [`abi`] is the same as a C ABI between shared objects;
//! the other files are the pure rules of CGI, HTTP and PEP 3333 that both sides apply.

#![deny(unsafe_code)]

use core::ffi::c_void;
use core::ptr::NonNull;

pub mod abi;
pub mod cgi;
pub mod forwarded;
pub mod head;
pub mod header_names;
pub mod interpreters;
pub mod memory;
pub mod response;
pub mod script_file;
pub mod slashes;
pub mod subnet;
pub mod trusted_proxies;

pub use abi::{Opt, Pair, Slice, Source, Text};
pub use head::{AsgiSettings, Authorization, Interface, Lifespan, RequestHead, Site, Target};

/// Proof that the calling thread may block: it does not hold the GIL.
///
/// Everything of an [`Exchange`] that may wait for the client asks for one, so that blocking I/O
/// under the GIL does not compile. In the gateway only `python::attach` makes one, for as long as
/// a thread is detached.
#[derive(Debug)]
pub struct MayBlock(());

impl MayBlock {
    /// The caller states that its thread does not hold the GIL and will not take it while the
    /// value is in use.
    pub fn detached() -> Self {
        MayBlock(())
    }
}

/// Whether a body read may block.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// Take what has already arrived; [`BodyError::WouldBlock`] if that is nothing.
    No,
    /// Wait for data.
    Yes(&'a MayBlock),
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Nothing has arrived yet and the caller asked not to wait.
    WouldBlock,
    /// The body is lost. `status` is the HTTP status that the failure deserves if the application
    /// does not answer itself: 408 time-out, 413 too large, 400 malformed or connection lost.
    Failed {
        /// 400, 408, 413 or another HTTP error status.
        status: u16,
    },
}

/// How a brigade is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Send {
    /// What was appended must reach the client now.
    Flush = 0,
    /// What was appended ends the response, which is complete.
    End = 1,
    /// What was appended is handed on; the server may buffer it.
    Keep = 2,
}

/// The client cannot be reached any more; nothing that is sent from now on arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientGone;

/// Severity of a log line, with httpd's (syslog's) numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The process cannot do its work.
    Alert = 1,
    /// Critical.
    Crit = 2,
    /// One request failed, or Python wrote to its error stream.
    Error = 3,
    /// Degraded.
    Warning = 4,
    /// Normal but significant.
    Notice = 5,
    /// Life cycle.
    Info = 6,
    /// For finding faults.
    Debug = 7,
    /// Very detailed.
    Trace1 = 8,
}

/// One HTTP request and the place where its response goes.
///
/// Owned by the thread that serves the request for as long as the gateway's `handle` runs. All
/// methods are called by one thread at a time (the gateway guarantees it by a lease, see
/// `wsgi::request`), but not necessarily always by the same thread.
///
/// Methods that may block take a [`MayBlock`]; all others return at once. [`log`](Self::log) with
/// `foreign` set may be called by any thread at any time until `handle` returns.
pub trait Exchange {
    /// Reads body bytes into `buffer` (never empty). `Ok(0)` is the end of the body, for ever.
    /// The first call with [`Wait::Yes`] lets the server send `100 Continue`. The size of the body
    /// is known by this alone: neither Content-Length nor chunking is the gateway's business.
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError>;

    /// Fills `buffer` (never empty) with body bytes; fewer only at the end of the body. What was read
    /// before a failure is lost. To be overridden where asking for much at once is cheaper.
    fn read_full(&self, buffer: &mut [u8], may_block: &MayBlock) -> Result<usize, BodyError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..], Wait::Yes(may_block))? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled)
    }

    /// Sets status and headers, replacing what an earlier call set. Everything is copied. May be
    /// called until the first `send`. The caller has validated all of it (see [`response`]).
    fn start(&self, head: &response::ResponseHead<'_>);

    /// Appends body bytes and copies them.
    fn append(&self, data: &[u8]);

    /// Appends body bytes without copying.
    ///
    /// `data` must stay valid and unchanged until the next `send` or `abort` has returned; the
    /// pointer is raw because that outlives the borrow checker's view of this call.
    fn append_borrowed(&self, data: memory::Borrowed);

    /// Appends `length` bytes of the regular file `fd`, from `offset`. The descriptor is
    /// duplicated; the caller may close its own at once. `Err` is an errno.
    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32>;

    /// Hands on what was appended. After `Send::End` only `log` may follow.
    fn send(&self, how: Send, may_block: &MayBlock) -> Result<(), ClientGone>;

    /// Ends a response that has begun but cannot be completed, so that the client sees that it is
    /// cut short: never a clean last chunk, never a reused connection.
    fn abort(&self, may_block: &MayBlock);

    /// Logs one line for this request. `foreign` says that the calling thread is not the one that
    /// serves the request; the line then carries the virtual host but not the request's own data.
    fn log(&self, level: Level, foreign: bool, line: &[u8]);

    /// Whether the client is known to have gone.
    fn client_gone(&self) -> bool;

    /// [`log`](Self::log) for a message that says where it was made (`%F` of httpd's log format).
    fn log_from(&self, level: Level, foreign: bool, source: Source<'_>, line: &[u8]) {
        let _ = source;
        self.log(level, foreign, line);
    }

    /// Whether a line of this level would be logged, as far as that is known without asking the
    /// server. Any thread, as for [`log`](Self::log).
    fn logs(&self, level: Level, foreign: bool) -> bool {
        let _ = (level, foreign);
        true
    }

    /// The server's own structure of the request, where the application may have it
    /// (`WSGIPassApacheRequest`). Valid as long as the exchange.
    fn native(&self) -> Option<NonNull<c_void>> {
        None
    }
}
