//! The end of an event loop: what is in hand ends, or is ended after a bound, then the
//! applications' lifespans.

use core::cell::Cell;
use core::sync::atomic::Ordering;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::EventLoop;
use crate::asgi::awaitable::Endpoint;
use crate::asgi::http::Cancelled;
use crate::asgi::link::Phase;
use crate::daemon::wire::{Kind, flag};
use crate::python::attach::Attached;
use crate::python::raise::Result;

/// How long what has been ended by force may take.
const LAST_WAIT: Duration = Duration::from_millis(1_500);

impl EventLoop {
    pub(super) fn go_on_draining(&'static self, py: Attached) {
        let inner = &self.inner;
        if inner.deadline.get().is_none() {
            let deadline = Instant::now() + self.house.bounds().drain;
            inner.deadline.set(Some(deadline));
            inner.ticks.set(true);
            self.set_timer(Duration::from_millis(200));
        }
        if self.is_in_a_hurry() {
            inner.deadline.set(Some(Instant::now()));
        }
        let ends = self.ends();
        if ends {
            self.let_idle_go(py);
        }
        let late = inner
            .deadline
            .get()
            .is_some_and(|deadline| Instant::now() >= deadline);
        if late && !inner.forced.replace(true) {
            self.each_running(|endpoint| match endpoint {
                Endpoint::Http(http) => http.cancel(py, Cancelled::Drain),
                Endpoint::WebSocket(session) => session.restart(py),
            });
        }
        let done = self.active.load(Ordering::Relaxed) == 0 && (late || !self.is_sending());
        // Whatever ignores its cancellation is not waited for.
        let too_late = inner
            .deadline
            .get()
            .is_some_and(|deadline| Instant::now() >= deadline + LAST_WAIT);
        if ends && (done || too_late) && !inner.shutting_down.replace(true) {
            self.shut_down(py);
        }
    }

    /// Whether the loop itself ends when nothing is in hand, and begins nothing.
    pub fn ends(&self) -> bool {
        self.is_draining() && (self.house.has_successor() || self.is_in_a_hurry())
    }

    /// Whether anything waits to be sent.
    fn is_sending(&self) -> bool {
        let links = self.inner.links.borrow();
        let mut links = links.iter().filter_map(|place| place.link.as_ref());
        links.any(|link| link.waiting() > 0)
    }

    /// Idle connections are closed, with a word.
    fn let_idle_go(&'static self, py: Attached) {
        let mut index = 0;
        loop {
            let link = {
                let links = self.inner.links.borrow();
                let Some(place) = links.get(index) else {
                    return;
                };
                place.link.clone()
            };
            if let Some(link) = link
                && link.waiting() == 0
                && matches!(*link.phase.borrow(), Phase::Idle)
                && !link.is_closed()
            {
                let _ = py;
                link.send_header(Kind::GoAway, flag::CLOSE, 0);
                if link.close_when_sent() {
                    self.remove(&link);
                }
            }
            index += 1;
        }
    }

    /// Tells the applications, then ends the loop.
    fn shut_down(&'static self, py: Attached) {
        let applications = self.inner.applications.take();
        let left = Rc::new(Cell::new(applications.len()));
        if applications.is_empty() {
            self.stop(py);
            return;
        }
        for application in applications {
            let left = Rc::clone(&left);
            application.shut_down(py, move |py| {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    self.stop(py);
                }
            });
        }
    }

    fn stop(&'static self, py: Attached) {
        let stop = || -> Result<()> {
            let event_loop = self.python(py)?.event_loop.clone_ref(py);
            let state = py.interpreter().asgi();
            state.call(py, c"stop", [event_loop]).map(drop)
        };
        if let Err(raised) = stop() {
            raised.clear(py);
        }
    }
}
