//! A tunnel that the handler's own thread carries, to its end: where the MPM keeps a thread for each
//! connection anyway, and for streams of HTTP/2, which have no socket of their own.

use core::time::Duration;
use std::os::fd::RawFd;
use std::time::Instant;

use super::ends::Ends;
use super::machine::{Buffer, End, Ready, Tunnel, Turn, Wants};
use super::{GRACE, LARGEST, LOOK, is_stopping, note_end};
use crate::daemon::client::connection::{Watch, wait};
use crate::httpd::apache::{Connection, Request};

/// How often a stream of HTTP/2 is asked whether its client has gone.
const ASK: Duration = Duration::from_millis(500);
/// The same where mod_http2 does not say either when something has come.
const ASK_OFTEN: Duration = Duration::from_millis(50);

/// Carries the bytes of a tunnel until it is over. Blocks.
pub fn carry(request: Request<'_>, mut tunnel: Tunnel, mut ends: Ends) {
    let end = run(request, &mut tunnel, &mut ends);
    note_end(request, &tunnel, end);
    if end == End::Stalled {
        request.connection().abort();
    }
}

fn run(request: Request<'_>, tunnel: &mut Tunnel, ends: &mut Ends) -> End {
    let connection = request.connection();
    let mut buffer = Buffer::new(LARGEST);
    let mut ready = Ready::ALL;
    let mut stop_at = None;
    loop {
        let now = Instant::now();
        if is_stopping() && now >= *stop_at.get_or_insert_with(|| now + GRACE) {
            tunnel.stop(&mut ends.both(Some(request)).0);
        }
        let worker = ends.worker();
        let (mut user, mut peer) = ends.both(Some(request));
        ready = match tunnel.turn(&mut user, &mut peer, &mut buffer, ready, now) {
            Turn::Over(end) => return end,
            Turn::Again => Ready::ALL,
            Turn::Wait(wants) => {
                if connection.aborted() {
                    return End::UserGone;
                }
                match sleep(connection, ends.stream.input_signal(), worker, wants, now) {
                    Some(ready) => ready,
                    None => return End::UserGone,
                }
            }
        };
    }
}

/// Waits for what the tunnel wants, or a little; `None` if the connection has been closed, as the MPM
/// does from another thread when it must end at once.
fn sleep(
    connection: Connection<'_>,
    signal: Option<RawFd>,
    worker: RawFd,
    wants: Wants,
    now: Instant,
) -> Option<Ready> {
    let (user, longest) = if connection.is_stream() {
        (signal, if signal.is_some() { ASK } else { ASK_OFTEN })
    } else {
        (Some(connection.socket()?), LOOK)
    };
    let watch = |fd, read, write| {
        let read = if read { libc::POLLIN } else { 0 };
        let events = read | if write { libc::POLLOUT } else { 0 };
        // One that has gone would be seen again and again.
        let fd = if events == 0 { -1 } else { fd };
        Watch { fd, events }
    };
    let timeout = wants
        .until
        .map_or(longest, |until| (until - now).min(longest));
    let [of_user, of_worker] = wait(
        [
            watch(user.unwrap_or(-1), wants.user_read, wants.user_write),
            watch(worker, wants.worker_read, wants.worker_write),
        ],
        // Not a little too early.
        timeout + Duration::from_millis(1),
    );
    let asks = user.is_none() && wants.user_read;
    Some(Ready {
        user_read: asks || of_user & !libc::POLLOUT != 0,
        user_write: of_user & !libc::POLLIN != 0,
        worker_read: of_worker & !libc::POLLOUT != 0,
    })
}
