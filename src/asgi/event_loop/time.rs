//! What takes its time: looked at about every second while there is something in hand.

use super::EventLoop;
use crate::asgi::http::Cancelled;
use crate::asgi::link::Phase;
use crate::python::attach::Attached;
use core::sync::atomic::Ordering;
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::time::Instant;

/// How long a cancelled task may go on.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

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
        let bounds = self.house.bounds();
        self.each_phase(|phase| match phase {
            Phase::Idle => {}
            Phase::Http(http) => {
                if let Some(since) = http.cancelled_at.get() {
                    if now.duration_since(since) > CANCEL_GRACE {
                        http.give_up(py);
                    }
                } else if bounds
                    .request
                    .is_some_and(|longest| now.duration_since(http.began) > longest)
                {
                    http.cancel(py, Cancelled::Timeout);
                }
            }
            Phase::WebSocket(session) => session.on_tick(py, now),
        });
        if self.active.load(Ordering::Relaxed) == 0 && !self.is_draining() {
            self.inner.ticks.set(false);
            self.set_timer(Duration::ZERO);
        }
    }

    pub(super) fn each_phase(&self, mut visit: impl FnMut(Phase)) {
        let mut index = 0;
        loop {
            let phase = {
                let links = self.inner.links.borrow();
                let Some(place) = links.get(index) else {
                    return;
                };
                place.link.as_ref().map(|link| link.phase.borrow().clone())
            };
            if let Some(phase) = phase {
                visit(phase);
            }
            index += 1;
        }
    }
}
