//! A tunnel whose connection the event MPM has let go of.

use core::ffi::c_void;
use core::ptr;
use core::time::Duration;
use std::time::Instant;

use super::departure::{self, Departure};
use super::ends::Ends;
use super::machine::{Buffer, End, Ready, Tunnel, Turn, Wants};
use super::{keeper, note_end};
use crate::httpd::apache::suspended::{Spare, Suspended};
use crate::httpd::apache::thread::Thread;
use crate::httpd::apache::{Connection, Request};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, apr_status_t, conn_rec, request_rec};

/// How long the client has to close its end after we have closed ours, as in httpd's own short
/// lingering close.
const LINGER: Duration = Duration::from_secs(2);

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;

/// Where a parked tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Bytes are carried.
    Open,
    /// The worker is not needed any more. What has been written for the client is on its way.
    Flushing(Instant),
    /// And now what TLS says at the end.
    Parting(Instant),
    /// The client has been told that nothing more comes; what it still sends is thrown away.
    Lingering(Instant),
}

/// A parked tunnel.
pub struct Parked(Box<Inner>);

struct Inner {
    suspended: Suspended,
    phase: Phase,
    tunnel: Tunnel,
    /// While bytes are carried.
    ends: Option<Ends>,
    /// How long a client may take nothing.
    patience: Duration,
    /// The MPM's thread, which may still be on its way.
    departure: Option<Departure>,
}

// SAFETY: it is used by one thread at a time. Nothing of a connection, its filters and brigades is
// bound to a thread.
unsafe impl Send for Inner {}

/// What the keeper is to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// epoll's events at the client's socket; 0: none.
    pub user: u32,
    /// And at the worker's.
    pub worker: u32,
    /// At the latest at this time.
    pub until: Option<Instant>,
}

/// What a step ended with.
pub enum Step {
    /// There is nothing to do before that.
    Wait(Interest),
    /// There is more to do when others had their turn.
    Again,
    /// Nothing is left but to free the connection.
    Over,
}

/// Parks a tunnel: from the moment on in which the MPM lets go of the connection, the keeper carries
/// it. The handler must return `SUSPENDED`.
pub fn park(request: Request<'_>, tunnel: Tunnel, ends: Ends) {
    // With `HostnameLookups On` the access log asks for the name, which the keeper could not wait for.
    request.client_host();
    // SAFETY: the caller has found out that it may be suspended; nobody uses the value before the MPM
    // has let go of the connection.
    let suspended = unsafe { Suspended::new(request) };
    let parked = Box::into_raw(Box::new(Inner {
        suspended,
        phase: Phase::Open,
        tunnel,
        ends: Some(ends),
        patience: request.connection().timeout(),
        departure: None,
    }));
    // SAFETY: `take` is what finds it there. The connection outlives its requests.
    unsafe {
        request.connection().set_slot(parked);
        let connection = request.connection().as_ptr();
        request.pool().on_clear(connection.cast(), forget);
    }
}

/// Takes what [`park`] has left with the connection.
fn take(connection: Connection<'_>) -> Option<Parked> {
    let parked: *mut Inner = connection.slot();
    if parked.is_null() {
        return None;
    }
    // SAFETY: `park` has made it of a box, and it is taken once.
    unsafe {
        connection.set_slot::<Inner>(ptr::null_mut());
        Some(Parked(Box::from_raw(parked)))
    }
}

/// A clean-up of the request's pool: httpd has ended the request instead of suspending it.
unsafe extern "C" fn forget(connection: *mut c_void) -> apr_status_t {
    guard(Place::Server(ptr::null_mut()), sys::APR_SUCCESS, || {
        // SAFETY: the connection of the request whose pool is being cleared.
        let connection = unsafe { Connection::new(connection.cast()) };
        drop(take(connection));
        sys::APR_SUCCESS
    })
}

/// httpd's `suspend_connection`: a thread of the event MPM lets go of a connection, for a while or for
/// good.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn suspend_connection(connection: *mut conn_rec, _: *mut request_rec) {
    guard(Place::Server(ptr::null_mut()), (), || {
        departure::step();
        // SAFETY: a connection that this thread still has.
        let parked = unsafe {
            let place = Connection::new(connection);
            if place.slot::<Inner>().is_null() || !Suspended::is_final(connection) {
                return;
            }
            take(place)
        };
        if let Some(mut parked) = parked {
            parked.0.departure = Departure::of_this_thread();
            // The keeper may take it over before this returns.
            keeper::take(parked);
        }
    });
}

impl Parked {
    /// Whether the MPM has let go of the connection, and it may be used.
    pub fn has_let_go(&self) -> bool {
        self.0.suspended.has_let_go()
    }

    /// Whether the MPM's thread has gone on, and the connection may be freed.
    pub fn may_be_freed(&self) -> bool {
        self.0.departure.as_ref().is_none_or(Departure::is_over)
    }

    /// To be called first, when the MPM has let go, by the keeper: `thread`.
    pub fn take_over(&mut self, thread: Option<Thread>) {
        self.0.suspended.take_over(thread);
    }

    /// Lends it memory for a [`step`](Self::step).
    pub fn lend(&mut self, spare: &mut Spare) {
        spare.lend(&mut self.0.suspended);
    }

    /// And takes it back.
    pub fn take_back(&mut self, spare: &mut Spare) {
        spare.take_back(&mut self.0.suspended);
    }

    /// The sockets: the client's, and the worker's while it is needed; -1 for one that there is not.
    pub fn sockets(&self) -> (i32, i32) {
        let worker = self.0.ends.as_ref().map_or(-1, Ends::worker);
        (self.0.suspended.connection().socket().unwrap_or(-1), worker)
    }

    /// Lets go of the worker, who sees it by the end of the connection, when bytes are carried no
    /// more. Its socket must not be in an epoll set.
    pub fn release(&mut self) {
        if self.0.phase != Phase::Open {
            self.0.ends = None;
        }
    }

    /// This process is about to end: bytes that are on their way still are carried, no others.
    pub fn stop(&mut self) {
        let inner = &mut *self.0;
        if let Some(ends) = &mut inner.ends {
            let (mut user, _) = ends.both(inner.suspended.request());
            inner.tunnel.stop(&mut user);
        }
    }

    /// Does what can be done, or a good part of it. `user` and `worker` are epoll's events at the
    /// sockets.
    pub fn step(&mut self, buffer: &mut Buffer, user: u32, worker: u32, now: Instant) -> Step {
        loop {
            match self.0.phase {
                Phase::Open => {
                    let ready = Ready {
                        user_read: user & !OUT != 0,
                        user_write: user & !IN != 0,
                        worker_read: worker & !OUT != 0,
                    };
                    match self.carry(buffer, ready, now) {
                        Turn::Again => return Step::Again,
                        Turn::Wait(wants) => return Step::Wait(Interest::of(wants)),
                        Turn::Over(end) => self.end(end, now),
                    }
                }
                Phase::Flushing(until) | Phase::Parting(until) => {
                    let connection = self.0.suspended.connection();
                    if connection.is_backed_up() && now < until {
                        return Step::Wait(Interest {
                            user: OUT,
                            worker: 0,
                            until: Some(until),
                        });
                    }
                    if connection.aborted() || now >= until {
                        return Step::Over;
                    }
                    self.part(now);
                }
                Phase::Lingering(until) => {
                    if now >= until || !self.discard(buffer) {
                        return Step::Over;
                    }
                    return Step::Wait(Interest {
                        user: IN,
                        worker: 0,
                        until: Some(until),
                    });
                }
            }
        }
    }

    fn carry(&mut self, buffer: &mut Buffer, ready: Ready, now: Instant) -> Turn {
        let inner = &mut *self.0;
        let Some(ends) = &mut inner.ends else {
            return Turn::Over(End::UserGone);
        };
        let (mut user, mut peer) = ends.both(inner.suspended.request());
        inner.tunnel.turn(&mut user, &mut peer, buffer, ready, now)
    }

    /// No more bytes are carried.
    fn end(&mut self, end: End, now: Instant) {
        if let Some(request) = self.0.suspended.request() {
            note_end(request, &self.0.tunnel, end);
        }
        if end == End::Stalled {
            self.0.suspended.connection().abort();
        }
        self.0.suspended.end_request();
        self.0.phase = Phase::Flushing(now + self.0.patience);
    }

    /// What was on its way has been sent.
    fn part(&mut self, now: Instant) {
        self.0.phase = match self.0.phase {
            Phase::Flushing(until) => {
                self.0.suspended.say_goodbye();
                Phase::Parting(until)
            }
            _ => {
                let (user, _) = self.sockets();
                // SAFETY: takes two numbers.
                unsafe { libc::shutdown(user, libc::SHUT_WR) };
                Phase::Lingering(now + LINGER)
            }
        };
    }

    /// Throws away what the client sends; `false` when it has closed its end.
    fn discard(&self, buffer: &mut Buffer) -> bool {
        let (user, _) = self.sockets();
        let room = buffer.room();
        // One who sends on and on does not keep others waiting.
        for _ in 0..4 {
            // SAFETY: writes into the room.
            let received = unsafe {
                let flags = libc::MSG_DONTWAIT;
                libc::recv(user, room.as_mut_ptr().cast(), room.len(), flags)
            };
            match received {
                0 => return false,
                1.. => {}
                _ => {
                    let errno = std::io::Error::last_os_error().kind();
                    return errno == std::io::ErrorKind::WouldBlock;
                }
            }
        }
        true
    }

    /// Says to the client that the connection is over, whatever there is left to send.
    pub fn shut_down(&self) {
        let (user, _) = self.sockets();
        // SAFETY: takes two numbers.
        unsafe { libc::shutdown(user, libc::SHUT_RDWR) };
    }

    /// Frees the connection. A request that has not ended is logged.
    ///
    /// # Safety
    /// [`may_be_freed`](Self::may_be_freed).
    pub unsafe fn free(mut self) {
        self.0.ends = None;
        if let Some(request) = self.0.suspended.request() {
            note_end(request, &self.0.tunnel, End::Stopped);
        }
        let Inner { suspended, .. } = *self.0;
        // SAFETY: the caller's promise.
        unsafe { suspended.destroy() }
    }
}

impl Interest {
    fn of(wants: Wants) -> Interest {
        let events = |read, write| if read { IN } else { 0 } | if write { OUT } else { 0 };
        Interest {
            user: events(wants.user_read, wants.user_write),
            worker: events(wants.worker_read, wants.worker_write),
            until: wants.until,
        }
    }
}
