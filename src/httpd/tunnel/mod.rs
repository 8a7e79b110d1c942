//! Tunnels: after a switch of protocols (WebSocket) httpd's child carries bytes between the client's
//! connection and the worker's.
//!
//! | file | what |
//! |---|---|
//! | [`frames`] | what a worker sends, taken apart (pure) |
//! | [`machine`] | one tunnel: what to do next (pure) |
//! | [`ends`] | its two ends: the connection's filters, the worker's socket |
//! | [`own`] | a tunnel that the handler's own thread carries |
//! | [`parked`] | a tunnel whose connection the event MPM has let go of, from its first byte to its last |
//! | [`keeper`] | the thread that carries all of those |
//! | [`departure`] | whether a thread of the MPM has gone on |
//!
//! Under the event MPM a tunnel holds no thread: the handler returns `SUSPENDED`, the MPM lets go of
//! the connection, and one thread of the child, the keeper, carries the bytes of all of them.
//! Elsewhere (other MPMs, streams of HTTP/2), the thread of the handler does so until the end.

pub mod departure;
pub mod ends;
pub mod frames;
pub mod keeper;
pub mod machine;
pub mod own;
pub mod parked;

use core::time::Duration;
use std::os::fd::OwnedFd;

use self::ends::Ends;
use self::machine::{End, Tunnel};
use crate::exchange::Level;
use crate::exchange::response::ResponseHead;
use crate::httpd::apache::stream::Stream;
use crate::httpd::apache::{Request, mpm};
use crate::messages::{TUNNEL_BROKEN, TUNNEL_DIED, TUNNEL_HTTP_1_0};

/// So many bytes pass at once, at most.
const LARGEST: usize = 32 * 1024;
/// With less than this, httpd's network filter might have to be waited for.
const SMALLEST: usize = 4 * 1024;

/// How long tunnels go on in a child process that has begun to stop gracefully: longer than workers
/// that are being replaced as well need to end them.
pub const GRACE: Duration = Duration::from_secs(20);

/// How often it is looked whether the process has begun to stop.
pub const LOOK: Duration = Duration::from_secs(1);

/// What has become of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is over, and the request with it.
    Over,
    /// The handler must return `SUSPENDED`.
    Parked,
    /// There is none: the handler must return this status.
    Refused(i32),
}

/// Answers `request` with `head`, a switch of protocols, and carries bytes between its client and the
/// worker behind `socket`, of which `received` have already come. Blocks, unless the tunnel can be
/// parked.
pub fn open(
    request: Request<'_>,
    head: &ResponseHead<'_>,
    socket: OwnedFd,
    received: &[u8],
) -> Opened {
    if !request.may_switch_protocols() {
        let line = format!("{TUNNEL_HTTP_1_0}a worker switches protocols for a client of HTTP/1.0");
        request.log(Level::Error, line.as_bytes());
        return Opened::Refused(502);
    }
    request.switch_protocols(head);
    if request.connection().aborted() {
        return Opened::Over;
    }
    let tunnel = Tunnel::new(received, request.connection().timeout());
    // SAFETY: the request and its connection live until the handler returns; a parked tunnel is
    // used only as its own rules say.
    let stream = unsafe { Stream::new(request) };
    let window = stream.window().min(LARGEST);
    let ends = Ends::new(stream, socket, window.max(SMALLEST));
    if window >= SMALLEST && request.may_be_suspended() && keeper::start(request.server()) {
        parked::park(request, tunnel, ends);
        return Opened::Parked;
    }
    own::carry(request, tunnel, ends);
    Opened::Over
}

/// What is logged of the end of a tunnel, and what the access log is told.
fn note_end(request: Request<'_>, tunnel: &Tunnel, end: End) {
    request.set_bytes_sent(tunnel.sent());
    let line = match end {
        End::Died => format!(
            "{TUNNEL_DIED}what served a WebSocket ended without closing it; see the other messages \
             of that time: {}",
            request.uri().escape_ascii()
        ),
        End::Malformed => format!(
            "{TUNNEL_BROKEN}a worker sent what does not belong into a WebSocket, which is closed: {}",
            request.uri().escape_ascii()
        ),
        End::Done | End::UserGone | End::Stalled | End::Stopped => {
            let line = format!("the tunnel has ended: {end:?}");
            request.log(Level::Debug, line.as_bytes());
            return;
        }
    };
    request.log(Level::Error, line.as_bytes());
}

/// Whether this process has begun to stop.
fn is_stopping() -> bool {
    mpm::is_stopping()
}
