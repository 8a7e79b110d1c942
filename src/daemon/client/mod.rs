//! The httpd child's side of daemon mode: it sends a request to a worker of the process group and
//! passes the answer on to the end user. Event loops of ASGI applications in the child itself are
//! reached in the same way, over socket pairs; what is said here of workers holds for them.
//!
//! | file | what |
//! |---|---|
//! | [`pools`] | the slots of a group, their idle connections |
//! | [`choice`] | which slot a request goes to (pure) |
//! | [`connection`] | the system calls of one connection |
//! | [`forward`](mod@forward) | one request: attempts until it is answered or must not be sent again |
//! | [`retry`] | what the end of an attempt means (pure) |
//! | [`frames`] | the stream of frames, taken apart as it arrives (pure) |
//! | [`pump`] | the answer of a worker, frame by frame |
//! | [`silence`] | a worker that has nothing to say yet, and an end user who may leave meanwhile |
//! | [`output`], [`backlog`] | its way to the end user, who may be slow |
//! | [`upload`] | the body on its way to the worker |
//! | [`head`], [`file`] | what a worker may put into a response |
//! | [`front`] | what is needed of the end user's side |
//! | [`buffers`] | memory that each thread keeps |

pub mod backlog;
pub mod buffers;
pub mod choice;
pub mod connection;
pub mod file;
pub mod forward;
pub mod frames;
pub mod front;
pub mod head;
pub mod output;
pub mod pools;
pub mod pump;
pub mod retry;
pub mod silence;
pub mod upload;

#[cfg(test)]
mod tests;

pub use forward::Call;
pub use front::Front;
pub use pools::{Connector, Pools};

/// Lets the process group answer a request. Blocks.
///
/// Returns what a gateway's `handle` would: [`outcome::DONE`], [`outcome::CUT`] or an HTTP status
/// for an error page. What went wrong has been logged for the request. Any thread may call it; the
/// response has been handed on when it returns.
///
/// [`outcome::DONE`]: crate::exchange::abi::outcome::DONE
/// [`outcome::CUT`]: crate::exchange::abi::outcome::CUT
pub fn forward<F: Front>(pools: &Pools, exchange: &F, call: &Call<'_>) -> i32 {
    let serve = || buffers::with(|buffers| forward::forward(pools, exchange, call, buffers));
    match pools.settings().response_timeout {
        None => serve(),
        Some(timeout) => {
            let before = exchange.set_write_timeout(timeout);
            let outcome = serve();
            exchange.set_write_timeout(before);
            outcome
        }
    }
}

use core::time::Duration;

/// What one httpd child knows of a process group.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group's name, for messages; that of the application group for an event loop in this
    /// process.
    pub group: Vec<u8>,
    /// Paths of the listening sockets, one per worker slot, in order; at least one. As this process
    /// sees them (after a chroot of httpd's own). Of no meaning for an event loop in this process.
    pub sockets: Vec<Vec<u8>>,
    /// `connect-timeout`: how long to go on trying to get a connection.
    pub connect_timeout: Duration,
    /// `socket-timeout`: how long one read or write on a connection may take; never zero. It does
    /// not limit how long an ASGI application is silent that has begun to answer, or is in this
    /// process.
    pub socket_timeout: Duration,
    /// `response-buffer-size`: bytes of one response that are kept for an end user who reads
    /// slowly, so that the worker is free.
    pub response_buffer: usize,
    /// `response-socket-timeout`: how long one write to the end user may take; absent: as httpd's
    /// `Timeout` has it.
    pub response_timeout: Option<Duration>,
    /// `send-buffer-size`: `SO_SNDBUF` of this end; 0: the system's default.
    pub send_buffer: usize,
    /// `receive-buffer-size`: `SO_RCVBUF` of this end; 0: the system's default.
    pub receive_buffer: usize,
}

/// `response-buffer-size` where nothing is configured.
pub const RESPONSE_BUFFER: usize = 8 * 1024 * 1024;

impl Default for Settings {
    /// The defaults of `WSGIDaemonProcess`; `group` and `sockets` are empty.
    fn default() -> Self {
        Settings {
            group: Vec::new(),
            sockets: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            socket_timeout: Duration::from_secs(300),
            response_buffer: RESPONSE_BUFFER,
            response_timeout: None,
            send_buffer: 0,
            receive_buffer: 0,
        }
    }
}
