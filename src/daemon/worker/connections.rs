//! The connections of a worker, and who may touch which of them.
//!
//! A connection is idle (nobody reads it, an event makes a thread take it), or taken by one thread.
//! An event for one that is taken only leaves a mark, PENDING: whoever gives it back then has to
//! look once more, since an edge-triggered event does not come twice.
//!
//! The thread that sends the end of a reply makes the connection idle *before* it sends: the next
//! request may be on its way before `send` returns. Meanwhile the connection is *pinned*: another
//! thread may take it and even close it, but its descriptor stays open until the last pin is gone,
//! so that no number is used again under a sender's feet.
//!
//! Places are used again; their generation tells a late event for an earlier connection apart.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Connections that share one allocation.
const CHUNK: usize = 64;
/// Allocations at most.
const CHUNKS: usize = 1024;

/// Bits of [`Connection::state`] below the generation.
const TAKEN: u64 = 1;
const PENDING: u64 = 2;
const CLOSED: u64 = 4;
const BITS: u32 = 3;

/// Bit of [`Connection::pins`]: the descriptor is to be closed when nobody has it pinned.
const CLOSE: u32 = 1 << 31;

struct Connection {
    state: AtomicU64,
    fd: AtomicI32,
    pins: AtomicU32,
}

/// All connections of a worker.
pub struct Connections {
    chunks: Box<[OnceLock<Box<[Connection]>>]>,
    places: Mutex<Places>,
    open: AtomicU32,
}

#[derive(Default)]
struct Places {
    free: Vec<u32>,
    used: u32,
}

/// A connection that the calling thread has taken. Dropped without further ado, it is closed.
pub struct Held<'c> {
    connections: &'c Connections,
    index: u32,
    generation: u32,
}

/// A descriptor that stays open although another thread may have taken its connection.
pub struct Pinned<'c> {
    connections: &'c Connections,
    index: u32,
    fd: i32,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            places: Mutex::default(),
            open: AtomicU32::new(0),
        }
    }
}

impl Connections {
    #[inline]
    fn get(&self, index: u32) -> Option<&Connection> {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK)?.get()?;
        chunk.get(index % CHUNK)
    }

    /// Adds an idle connection; its token is what epoll shall report. `None` (the descriptor is
    /// closed) if there are too many.
    pub fn open(&self, fd: OwnedFd) -> Option<u64> {
        let index = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            match places.free.pop() {
                Some(index) => index,
                None if (places.used as usize) < CHUNKS * CHUNK => {
                    places.used += 1;
                    places.used - 1
                }
                None => return None,
            }
        };
        self.chunks[index as usize / CHUNK].get_or_init(|| {
            let connection = || Connection {
                state: AtomicU64::new(CLOSED),
                fd: AtomicI32::new(-1),
                pins: AtomicU32::new(0),
            };
            (0..CHUNK).map(|_| connection()).collect()
        });
        let connection = self.get(index)?;
        connection.fd.store(fd.into_raw_fd(), Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let generation =
            ((connection.state.load(Ordering::Relaxed) >> BITS) as u32).wrapping_add(1);
        let state = u64::from(generation) << BITS;
        connection.state.store(state, Ordering::Release);
        Some(token(generation, index))
    }

    /// Takes an idle connection because of an event. `None`: it is taken (and gets the mark), or
    /// does not exist any more.
    #[inline]
    pub fn take(&self, token: u64) -> Option<Held<'_>> {
        let (generation, index) = ((token >> 32) as u32, token as u32);
        let connection = self.get(index)?;
        let mut state = connection.state.load(Ordering::Relaxed);
        loop {
            if (state >> BITS) as u32 != generation || state & CLOSED != 0 {
                return None;
            }
            let next = state | if state & TAKEN == 0 { TAKEN } else { PENDING };
            match connection.state.compare_exchange_weak(
                state,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) if state & TAKEN != 0 => return None,
                Ok(_) => {
                    return Some(Held {
                        connections: self,
                        index,
                        generation,
                    });
                }
                Err(changed) => state = changed,
            }
        }
    }

    /// Takes every connection that is idle and not pinned, one after another.
    pub fn take_idle(&self, mut with: impl FnMut(Held<'_>)) {
        let used = self
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used;
        for index in 0..used {
            let Some(connection) = self.get(index) else {
                continue;
            };
            let state = connection.state.load(Ordering::Acquire);
            if state & (TAKEN | CLOSED) != 0 {
                continue;
            }
            let generation = (state >> BITS) as u32;
            let Some(held) = self.take(token(generation, index)) else {
                continue;
            };
            // Pinned before it became idle, so this is seen: a reply is being sent right now.
            if connection.pins.load(Ordering::Acquire) != 0 {
                held.hand_over(|_| ());
            } else {
                with(held);
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// Closes the descriptors in a process that has been forked off: a client must see the end of
    /// its connection when the worker dies. Nothing else of the connections may be used afterwards.
    pub fn close_in_forked_child(&self) {
        for index in 0..(CHUNKS * CHUNK) as u32 {
            let Some(connection) = self.get(index) else {
                return;
            };
            let fd = connection.fd.swap(-1, Ordering::Relaxed);
            if fd >= 0 {
                // SAFETY: the descriptor of an open connection, of no use to this process.
                unsafe { libc::close(fd) };
            }
        }
    }

    /// The last use of a place is over.
    fn dispose(&self, index: u32) {
        let Some(connection) = self.get(index) else {
            return;
        };
        let fd = connection.fd.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the place owned the descriptor; it is closed and nobody has it pinned.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        connection.pins.store(0, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Release);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.free.push(index);
    }
}

#[inline]
fn token(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

impl<'c> Held<'c> {
    #[inline]
    fn connection(&self) -> &'c Connection {
        self.connections
            .get(self.index)
            .expect("what is held exists")
    }

    /// The descriptor, open as long as the connection is held.
    #[inline]
    pub fn fd(&self) -> i32 {
        self.connection().fd.load(Ordering::Relaxed)
    }

    /// What epoll reports for it.
    pub fn token(&self) -> u64 {
        token(self.generation, self.index)
    }

    /// Takes the socket out: the connection is gone from here, but not closed. `None` if the process
    /// has no descriptor left.
    pub fn into_socket(self) -> Option<OwnedFd> {
        let connection = self.connection();
        if connection.pins.load(Ordering::Acquire) != 0 {
            // A thread that has sent a reply has not come back from it: its descriptor stays.
            // SAFETY: an open descriptor; a new one is owned by nobody else.
            unsafe {
                let fd = libc::fcntl(self.fd(), libc::F_DUPFD_CLOEXEC, 0);
                return (fd >= 0).then(|| OwnedFd::from_raw_fd(fd));
            }
        }
        let fd = connection.fd.swap(-1, Ordering::Relaxed);
        // SAFETY: the place owned the descriptor, and has let go of it.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Makes the connection idle. If an event has come meanwhile, the connection is still held, and
    /// the caller has to look again.
    ///
    /// # Errors
    /// The connection, still held; the mark has been wiped.
    #[inline]
    pub fn give_back(self) -> Result<(), Self> {
        match self.make_idle() {
            true => {
                core::mem::forget(self);
                Ok(())
            }
            false => {
                self.connection()
                    .state
                    .fetch_and(!PENDING, Ordering::AcqRel);
                Err(self)
            }
        }
    }

    /// Makes the connection idle in any case. If an event has come meanwhile, `again` is called
    /// with the connection: it arranges for another one.
    pub fn hand_over(self, mut again: impl FnMut(&Self)) {
        let mut held = self;
        while let Err(still) = held.give_back() {
            again(&still);
            held = still;
        }
    }

    /// Makes the connection idle and keeps its descriptor open.
    ///
    /// # Errors
    /// The connection, still held, if an event has come: it has to be looked at.
    #[inline]
    pub fn give_back_pinned(self) -> Result<Pinned<'c>, Self> {
        let connection = self.connection();
        connection.pins.fetch_add(1, Ordering::Relaxed);
        let pinned = Pinned {
            connections: self.connections,
            index: self.index,
            fd: self.fd(),
        };
        if self.make_idle() {
            core::mem::forget(self);
            Ok(pinned)
        } else {
            drop(pinned);
            Err(self)
        }
    }

    #[inline]
    fn make_idle(&self) -> bool {
        let state = u64::from(self.generation) << BITS;
        self.connection()
            .state
            .compare_exchange(state | TAKEN, state, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

impl core::fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "connection {}.{}", self.index, self.generation)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let connection = self.connection();
        let state = u64::from(self.generation) << BITS | CLOSED;
        connection.state.store(state, Ordering::Release);
        if connection.pins.fetch_or(CLOSE, Ordering::AcqRel) == 0 {
            self.connections.dispose(self.index);
        }
    }
}

impl Pinned<'_> {
    /// The descriptor.
    #[inline]
    pub fn fd(&self) -> i32 {
        self.fd
    }
}

impl Drop for Pinned<'_> {
    #[inline]
    fn drop(&mut self) {
        let connection = self.connections.get(self.index);
        let connection = connection.expect("what is pinned exists");
        if connection.pins.fetch_sub(1, Ordering::AcqRel) == CLOSE | 1 {
            self.connections.dispose(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn one() -> (UnixStream, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, theirs.into())
    }

    fn is_closed(peer: &mut UnixStream) -> bool {
        use std::io::Read;
        peer.set_nonblocking(true).unwrap();
        matches!(peer.read(&mut [0]), Ok(0))
    }

    #[test]
    fn a_taken_connection_is_taken_once_and_remembers_events() {
        let connections = Connections::default();
        let (_peer, fd) = one();
        let token = connections.open(fd).unwrap();
        let held = connections.take(token).unwrap();
        assert!(connections.take(token).is_none());
        let held = held.give_back().expect_err("the event is remembered");
        assert!(held.give_back().is_ok());
        assert!(connections.take(token).is_some());
    }

    #[test]
    fn what_is_dropped_is_closed_and_old_events_are_ignored() {
        let connections = Connections::default();
        let (mut peer, fd) = one();
        let old = connections.open(fd).unwrap();
        drop(connections.take(old));
        assert!(is_closed(&mut peer));
        assert_eq!(connections.count(), 0);
        let (_peer, fd) = one();
        let new = connections.open(fd).unwrap();
        assert_eq!(old as u32, new as u32, "the place is used again");
        assert!(connections.take(old).is_none());
        assert!(connections.take(new).is_some());
    }

    #[test]
    fn a_pinned_descriptor_outlives_its_connection() {
        let connections = Connections::default();
        let (mut peer, fd) = one();
        let token = connections.open(fd).unwrap();
        let pinned = connections.take(token).unwrap().give_back_pinned();
        let pinned = pinned.ok().unwrap();
        let mut swept = 0;
        connections.take_idle(|_| swept += 1);
        assert_eq!(swept, 0, "a reply is on its way");
        drop(connections.take(token).expect("idle while pinned"));
        assert!(connections.take(token).is_none());
        assert!(!is_closed(&mut peer));
        assert_eq!(connections.count(), 1);
        drop(pinned);
        assert!(is_closed(&mut peer));
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn an_event_before_the_end_keeps_it_held() {
        let connections = Connections::default();
        let (_peer, fd) = one();
        let token = connections.open(fd).unwrap();
        let held = connections.take(token).unwrap();
        assert!(connections.take(token).is_none());
        let held = held.give_back_pinned().map(drop).expect_err("still held");
        let mut again = 0;
        held.hand_over(|_| again += 1);
        assert_eq!(again, 1);
        let mut swept = 0;
        connections.take_idle(|_| swept += 1);
        assert_eq!((swept, connections.count()), (1, 0));
    }

    #[test]
    fn many_threads_never_share_a_connection() {
        let connections = &Connections::default();
        let (_peer, fd) = one();
        let token = connections.open(fd).unwrap();
        let inside = &AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let Some(held) = connections.take(token) else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        held.hand_over(|_| ());
                    }
                });
            }
        });
        assert!(connections.take(token).is_some());
    }
}
