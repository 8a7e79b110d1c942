//! What happens while the worker of an ASGI request has nothing to say: long polls, and the pauses
//! of server-sent events.
//!
//! An application that waits must learn that nobody waits with it. So the connection's reads give up
//! after [`WATCH_AFTER`], and from then on worker and end user are watched together. Requests that
//! are answered sooner cost nothing.

use core::time::Duration;
use std::time::Instant;

use super::connection::{Watch, wait};
use super::front::Front;
use super::pools::WATCH_AFTER;
use super::pump::{End, Pump};
use super::retry::Event;
use crate::exchange::Level;

/// How often the front is asked, beside the sockets, whether the end user has gone: that of a
/// connection shared with others has no socket.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl<F: Front> Pump<'_, F> {
    /// How long the worker may be silent; `None`: as long as the end user is there.
    pub(super) fn patience(&self) -> Option<Duration> {
        let unlimited = self.watches && (self.started || self.pools.is_local());
        (!unlimited).then(|| self.pools.settings().socket_timeout)
    }

    /// The worker has been silent for a moment. Returns when it has something to say.
    #[cold]
    pub(super) fn wait_and_watch(&mut self) -> Result<(), End> {
        let began = Instant::now();
        let worker = match &self.lease {
            Some(lease) => lease.connection().fd(),
            None => return Err(self.lost(Event::Eof)),
        };
        let user = self.front.socket().unwrap_or(-1);
        let patience = self.patience();
        loop {
            let left = match patience {
                None => LOOK_AGAIN,
                Some(patience) => {
                    let left = patience.saturating_sub(WATCH_AFTER + began.elapsed());
                    if left.is_zero() {
                        return Err(self.lost(Event::Timeout));
                    }
                    // Rounded up: a wait that ends too early would be repeated.
                    left.min(LOOK_AGAIN) + Duration::from_millis(1)
                }
            };
            let watches = [
                Watch {
                    fd: worker,
                    events: libc::POLLIN,
                },
                Watch {
                    fd: user,
                    events: libc::POLLRDHUP,
                },
            ];
            let [from_worker, of_user] = wait(watches, left);
            if from_worker != 0 {
                return Ok(());
            }
            if of_user != 0 || self.front.has_gone() {
                return Err(self.left());
            }
        }
    }

    /// The end user has gone while the worker was silent, which is no fault of anybody.
    fn left(&mut self) -> End {
        let line = format!("the client has gone before the answer's end: {}", self.call);
        self.front.log(Level::Debug, false, line.as_bytes());
        self.front.give_up();
        self.gone()
    }
}
