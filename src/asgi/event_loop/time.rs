//! What takes its time: looked at about every second while there is something in hand.

use core::sync::atomic::Ordering;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::EventLoop;
use crate::asgi::awaitable::Endpoint;
use crate::python::attach::Attached;

/// How long a cancelled task may go on.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// The same when the loop ends.
const LAST_GRACE: Duration = Duration::from_millis(800);

impl EventLoop {
    pub(super) fn set_timer(&self, every: Duration) {
        let time = libc::timespec {
            tv_sec: every.as_secs() as libc::time_t,
            tv_nsec: every.subsec_nanos().into(),
        };
        let spec = libc::itimerspec {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: a valid structure; an open timer.
        unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &spec, core::ptr::null_mut());
        }
    }

    pub(super) fn on_tick(&'static self, py: Attached) {
        let mut value = 0_u64;
        // SAFETY: eight bytes from an open timer.
        unsafe {
            libc::read(
                self.timer.as_raw_fd(),
                (&raw mut value).cast(),
                size_of::<u64>(),
            )
        };
        let now = Instant::now();
        let longest = self.house.bounds().request;
        let grace = if self.inner.forced.get() {
            LAST_GRACE
        } else {
            CANCEL_GRACE
        };
        self.each_running(|endpoint| match endpoint {
            Endpoint::Http(http) => http.on_tick(py, now, longest, grace),
            Endpoint::WebSocket(session) => session.on_tick(py, now, grace),
        });
        if self.active.load(Ordering::Relaxed) == 0 && !self.is_draining() {
            self.inner.ticks.set(false);
            self.set_timer(Duration::ZERO);
        }
    }

    /// Visits all that is in hand; what is visited may end, and something may begin meanwhile.
    pub(super) fn each_running(&self, mut visit: impl FnMut(Endpoint)) {
        let mut index = 0;
        loop {
            let endpoint = match self.inner.running.borrow().get(index) {
                None => return,
                Some(place) => place.clone(),
            };
            if let Some(endpoint) = endpoint {
                visit(endpoint);
            }
            index += 1;
        }
    }
}
