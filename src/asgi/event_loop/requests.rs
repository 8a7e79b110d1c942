//! What an event loop has in hand.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use super::{EventLoop, TICK_EVERY};
use crate::asgi::application::Application;
use crate::asgi::awaitable::Endpoint;
use crate::asgi::link::{Link, Phase};
use crate::python::attach::Attached;

impl EventLoop {
    /// Whether another HTTP request may begin. If not, the connection is looked at again as soon
    /// as one may.
    pub fn may_begin(&self, link: &Link) -> bool {
        if !self.is_full() {
            return true;
        }
        self.inner.postponed.borrow_mut().push_back(link.token);
        false
    }

    /// Whether there are as many HTTP requests in hand as there may be.
    fn is_full(&self) -> bool {
        let most = crate::python::runtime::runtime().map_or(0, |r| r.options.concurrency);
        most > 0 && self.inner.requests.get() >= most
    }

    /// A request or a WebSocket begins, over `link`.
    pub fn begins(&self, link: &Link, endpoint: &Endpoint) {
        let place = self.inner.unused.borrow_mut().pop();
        let mut running = self.inner.running.borrow_mut();
        let place = place.unwrap_or_else(|| {
            running.push(None);
            (running.len() - 1) as u32
        });
        running[place as usize] = Some(endpoint.clone());
        drop(running);
        let phase = match endpoint {
            Endpoint::Http(http) => {
                self.inner.requests.set(self.inner.requests.get() + 1);
                http.place.set(place);
                Phase::Http(Arc::clone(http))
            }
            Endpoint::WebSocket(session) => {
                session.place.set(place);
                Phase::WebSocket(Arc::clone(session))
            }
        };
        *link.phase.borrow_mut() = phase;
        self.active.fetch_add(1, Ordering::Relaxed);
        if !self.inner.ticks.replace(true) {
            self.set_timer(TICK_EVERY);
        }
    }

    /// It is over.
    fn forget(&self, place: u32) {
        let ended = self.inner.running.borrow_mut()[place as usize].take();
        self.inner.unused.borrow_mut().push(place);
        drop(ended);
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.house.finished();
    }

    /// The reply has been sent to its end; the application may go on.
    pub fn reply_ended(&self, token: u64) {
        let Some(link) = self.link(token) else {
            return;
        };
        *link.phase.borrow_mut() = Phase::Idle;
        if self.ends() && link.close_when_sent() {
            self.remove(&link);
        }
    }

    /// The application has done with an HTTP request.
    pub fn request_ended(&self, place: u32) {
        self.inner.requests.set(self.inner.requests.get() - 1);
        self.forget(place);
        if self.is_draining() || !self.inner.postponed.borrow().is_empty() {
            self.signal();
        }
    }

    /// Has a connection looked at again, in the loop's next round.
    pub fn look_again(&self, token: u64) {
        self.inner.again.borrow_mut().push(token);
        self.signal();
    }

    /// Requests that had to wait for others.
    pub(super) fn begin_postponed(&'static self, py: Attached) {
        for token in self.inner.again.take() {
            if let Some(link) = self.link(token) {
                self.on_event(py, &link, libc::EPOLLIN | libc::EPOLLRDHUP);
            }
        }
        let count = self.inner.postponed.borrow().len();
        for _ in 0..count {
            if self.is_full() {
                return;
            }
            let next = self.inner.postponed.borrow_mut().pop_front();
            let Some(link) = next.and_then(|token| self.link(token)) else {
                continue;
            };
            // What was reported meanwhile, its end as well, is not reported again.
            self.on_event(py, &link, libc::EPOLLIN | libc::EPOLLRDHUP);
        }
    }

    /// A WebSocket is over.
    pub fn session_ended(&self, place: u32) {
        self.forget(place);
        if self.is_draining() {
            self.signal();
        }
    }

    /// The load, as the frame that ends a reply tells it: without the request that ends.
    pub fn load_without_one(&self) -> u16 {
        self.house.load().saturating_sub(1)
    }

    /// The applications that have been asked for.
    pub fn applications(&self) -> &RefCell<Vec<Arc<Application>>> {
        &self.inner.applications
    }
}
