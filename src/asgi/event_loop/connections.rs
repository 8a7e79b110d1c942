//! What is ready in the epoll set of an event loop.

use core::sync::atomic::Ordering;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::PoisonError;

use super::{BUFFER, EVENTS, EventLoop, Message, Place, TICK, WAKE};
use crate::asgi::application;
use crate::asgi::link::{Link, Phase, Sent};
use crate::exchange::{Level, Source};
use crate::python::attach::Attached;

impl EventLoop {
    pub(super) fn ready(&'static self, py: Attached) {
        self.beat_ms
            .store(crate::daemon::board::now_ms(), Ordering::Relaxed);
        // SAFETY: plain data for which all zeroes is a value.
        let mut events: [libc::epoll_event; EVENTS] = unsafe { core::mem::zeroed() };
        // SAFETY: room for as many events.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                0,
            )
        };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            match event.u64 {
                WAKE => self.on_wake(py),
                TICK => self.on_tick(py),
                token => {
                    if let Some(link) = self.link(token) {
                        self.on_event(py, &link, event.events as i32);
                    }
                }
            }
        }
        self.begin_postponed(py);
        if self.is_draining() {
            self.go_on_draining(py);
        }
    }

    /// The connection with this token, if it is still there.
    pub fn link(&self, token: u64) -> Option<Rc<Link>> {
        let links = self.inner.links.borrow();
        let place = links.get((token & 0xffff_ffff) as usize)?;
        if u64::from(place.generation) != token >> 32 {
            return None;
        }
        place.link.clone()
    }

    fn add(&self, socket: OwnedFd) -> Option<Rc<Link>> {
        let mut links = self.inner.links.borrow_mut();
        let index = self.inner.free.borrow_mut().pop().unwrap_or_else(|| {
            links.push(Place {
                generation: 0,
                link: None,
            });
            (links.len() - 1) as u32
        });
        let place = &mut links[index as usize];
        // Never 0, so that no token is 0.
        place.generation = (place.generation % (u32::MAX - 1)) + 1;
        let token = u64::from(place.generation) << 32 | u64::from(index);
        match Link::new(socket, self.epoll.as_raw_fd(), token) {
            Ok(link) => {
                place.link = Some(Rc::clone(&link));
                Some(link)
            }
            Err(_) => {
                self.inner.free.borrow_mut().push(index);
                None
            }
        }
    }

    /// Forgets a connection, which is closed.
    pub fn remove(&self, link: &Link) {
        link.close();
        let index = (link.token & 0xffff_ffff) as u32;
        let mut links = self.inner.links.borrow_mut();
        let Some(place) = links.get_mut(index as usize) else {
            return;
        };
        if u64::from(place.generation) != link.token >> 32 {
            return;
        }
        let removed = place.link.take();
        drop(links);
        if removed.is_some() {
            self.inner.free.borrow_mut().push(index);
        }
    }

    /// Takes the shared buffer for a while; another is made for whoever wants it meanwhile.
    pub fn take_buffer(&self) -> Vec<u8> {
        let mut buffer = self.inner.buffer.take();
        if buffer.len() < BUFFER {
            buffer = vec![0; BUFFER];
        }
        buffer
    }

    /// Gives it back.
    pub fn give_buffer(&self, buffer: Vec<u8>) {
        self.inner.buffer.replace(buffer);
    }

    fn on_wake(&'static self, py: Attached) {
        let mut value = 0_u64;
        // SAFETY: eight bytes from an open eventfd.
        unsafe {
            libc::read(
                self.wake.as_raw_fd(),
                (&raw mut value).cast(),
                size_of::<u64>(),
            )
        };
        let messages = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            core::mem::take(&mut inbox.messages)
        };
        for message in messages {
            match message {
                Message::Adopt(socket, frame) => {
                    let Some(link) = self.add(socket) else {
                        continue;
                    };
                    if !frame.is_empty() {
                        *link.input.borrow_mut() = frame;
                    }
                    self.on_event(py, &link, libc::EPOLLIN);
                }
                Message::Begin(application, tell) => {
                    application::begin_early(py, self, &application, tell);
                }
                Message::Log(token, level, line) => {
                    if !self.log_for(token, level, None, &line) {
                        self.house.log(level, &line);
                    }
                }
            }
        }
    }

    /// Something has happened at a connection.
    pub fn on_event(&'static self, py: Attached, link: &Rc<Link>, events: i32) {
        if events & libc::EPOLLOUT != 0 {
            if link.flush() == Sent::Gone {
                self.on_end(py, link);
                return;
            }
            if link.is_closed() {
                self.remove(link);
                return;
            }
            if link.waiting() <= crate::asgi::link::LOW_WATER {
                let phase = link.phase.borrow().clone();
                match phase {
                    Phase::Idle | Phase::Closing => {}
                    Phase::Http(http) => http.on_room(py),
                    Phase::WebSocket(session) => session.on_room(py),
                }
            }
        }
        if events & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            crate::asgi::arrival::read(self, py, link, events & !libc::EPOLLIN != 0);
        }
    }

    /// The other end of a connection has gone.
    pub fn on_end(&self, py: Attached, link: &Rc<Link>) {
        let phase = core::mem::replace(&mut *link.phase.borrow_mut(), Phase::Idle);
        self.remove(link);
        match phase {
            Phase::Idle | Phase::Closing => {}
            Phase::Http(http) => http.on_gone(py),
            Phase::WebSocket(session) => session.on_gone(py),
        }
    }

    /// Logs for the request of a connection. `false`: there is none any more.
    pub fn log_for(
        &self,
        token: u64,
        level: Level,
        source: Option<Source<'_>>,
        line: &[u8],
    ) -> bool {
        match self.link(token) {
            Some(link) if !matches!(*link.phase.borrow(), Phase::Idle | Phase::Closing) => {
                link.log(level, source, line)
            }
            _ => false,
        }
    }
}
