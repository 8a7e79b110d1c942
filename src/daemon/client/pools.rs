//! The slots of a process group and their idle connections.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Settings;
use super::choice::{Standing, choose};
use super::connection::{Address, Connection, Options, wait};
use crate::exchange::Interface;

/// How long a slot that has failed is avoided while there is another.
const SUSPECT: Duration = Duration::from_millis(250);
/// How long to wait before looking again for a listener that is not there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long to wait for a place in one queue before the other slots are looked at again.
const IN_QUEUE: Duration = Duration::from_millis(500);

/// How long one read on a connection of [`Lane::Asgi`] waits, before the end user is looked at as
/// well.
pub const WATCH_AFTER: Duration = Duration::from_millis(250);

/// Gives this end of a new connection to an event loop of this process; `None` if there is none, and
/// why has been logged.
pub type Connector = Box<dyn Fn() -> Option<OwnedFd> + Send + Sync>;

/// How the other side of a slot is reached.
enum Way {
    /// A listening socket; absent if its path cannot be one.
    Socket(Option<Address>),
    /// A function of this process.
    Function(Connector),
}

/// What a connection has served, and serves: one that an event loop of the worker has taken over is
/// of no use for its threads, and theirs would have to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// WSGI.
    Wsgi,
    /// ASGI, and what may turn out to be that.
    Asgi,
}

impl From<Interface> for Lane {
    #[inline]
    fn from(interface: Interface) -> Lane {
        match interface {
            Interface::Wsgi => Lane::Wsgi,
            Interface::Asgi | Interface::Auto => Lane::Asgi,
        }
    }
}

/// Idle connections, by [`Lane`].
type Idle = [Vec<Connection>; 2];

/// A place for one worker. Each has cache lines of its own: all threads write here.
#[repr(align(128))]
struct Slot {
    way: Way,
    idle: Mutex<Idle>,
    /// Requests of this child that are being served.
    running: AtomicU32,
    /// Busy threads, as the worker said last; fades while others are preferred.
    hint: AtomicU32,
    /// Until when it is avoided: microseconds since `Pools::began`, 0 if it is not.
    suspect_until: AtomicU64,
}

impl Slot {
    fn new(way: Way) -> Slot {
        Slot {
            way,
            idle: Mutex::default(),
            running: AtomicU32::new(0),
            hint: AtomicU32::new(0),
            suspect_until: AtomicU64::new(0),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing in there can be half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one httpd child keeps for a process group: made in `child_init`, shared by all threads,
/// dropped when the child ends. Or for the event loop of an application group in its own process,
/// made when the first request needs it.
pub struct Pools {
    settings: Settings,
    slots: Box<[Slot]>,
    began: Instant,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// All queues were full until the time was over.
    QueueFull,
    /// Nobody listened until the time was over; the last errno.
    NobodyListens(i32),
    /// The system refuses: an errno.
    Failed(i32),
    /// There is no event loop in this process; why has been logged.
    NoLoop,
}

/// A connection that serves one request. Dropped, it is closed.
pub struct Lease<'p> {
    pools: &'p Pools,
    slot: usize,
    lane: Lane,
    connection: Option<Connection>,
    fresh: bool,
}

impl Pools {
    /// No connection is made yet.
    pub fn new(settings: Settings) -> Pools {
        let ways = settings.sockets.iter().map(|path| Address::new(path));
        let slots = ways.map(|way| Slot::new(Way::Socket(way))).collect();
        Pools {
            slots,
            settings,
            began: Instant::now(),
        }
    }

    /// The same for the event loop of an application group in this process, which `group` of the
    /// settings names.
    pub fn local(settings: Settings, connector: Connector) -> Pools {
        Pools {
            slots: Box::new([Slot::new(Way::Function(connector))]),
            settings,
            began: Instant::now(),
        }
    }

    /// Whether it is an event loop of this process that answers.
    pub fn is_local(&self) -> bool {
        matches!(
            self.slots.first(),
            Some(Slot {
                way: Way::Function(_),
                ..
            })
        )
    }

    /// Who answers, for messages.
    pub fn who(&self) -> String {
        let group = String::from_utf8_lossy(&self.settings.group);
        match (self.is_local(), group.is_empty()) {
            (false, _) => format!("a worker of the process group '{group}'"),
            (true, false) => {
                format!("the event loop of this process for the application group '{group}'")
            }
            (true, true) => "the event loop of this process".to_owned(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many connections of `slot` are idle.
    #[cfg(test)]
    pub fn idle(&self, slot: usize) -> usize {
        self.slots[slot].idle().iter().map(Vec::len).sum()
    }

    /// Whether `slot` has failed, at whatever time.
    #[cfg(test)]
    pub fn is_suspect(&self, slot: usize) -> bool {
        self.slots[slot].suspect_until.load(Ordering::Relaxed) != 0
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn standing(&self, slot: usize) -> Standing {
        let slot = &self.slots[slot];
        let suspect_until = slot.suspect_until.load(Ordering::Relaxed);
        let running = slot.running.load(Ordering::Relaxed);
        Standing {
            load: running + slot.hint.load(Ordering::Relaxed),
            running,
            suspect: suspect_until != 0 && self.now() < suspect_until,
        }
    }

    fn choose(&self) -> usize {
        if self.slots.len() == 1 {
            return 0;
        }
        let choice = choose(self.slots.len(), random(), |slot| self.standing(slot));
        if let Some(loser) = choice.loser {
            // What it said last is getting old.
            let hint = &self.slots[loser].hint;
            let known = hint.load(Ordering::Relaxed);
            hint.store(known.saturating_sub(1), Ordering::Relaxed);
        }
        choice.slot
    }

    /// Avoids `slot` for a while.
    #[cold]
    pub fn suspect(&self, slot: usize) {
        let until = self.now() + SUSPECT.as_micros() as u64;
        self.slots[slot]
            .suspect_until
            .store(until, Ordering::Relaxed);
    }

    fn lease_of(&self, slot: usize, lane: Lane, connection: Connection, fresh: bool) -> Lease<'_> {
        if self.slots.len() > 1 {
            self.slots[slot].running.fetch_add(1, Ordering::Relaxed);
        }
        Lease {
            pools: self,
            slot,
            lane,
            connection: Some(connection),
            fresh,
        }
    }

    /// An idle connection for `lane`, or a new one. `there`: a new one to this slot, whose idle ones lead to
    /// a worker that is being replaced. `patience` is when to give up, set when there is something
    /// to wait for.
    ///
    /// # Errors
    /// There was none until then.
    #[inline]
    pub fn lease(
        &self,
        lane: Lane,
        there: Option<usize>,
        patience: &mut Option<Instant>,
    ) -> Result<Lease<'_>, Unavailable> {
        if self.slots.is_empty() {
            return Err(Unavailable::NobodyListens(libc::ENOENT));
        }
        if let Some(slot) = there {
            return self.connect(slot, lane, patience);
        }
        let slot = self.choose();
        let idle = self.slots[slot].idle()[lane as usize].pop();
        match idle {
            Some(connection) => Ok(self.lease_of(slot, lane, connection, false)),
            None => self.connect(slot, lane, patience),
        }
    }

    /// A new connection, to `slot` if that has a place, else to any.
    #[cold]
    fn connect(
        &self,
        slot: usize,
        lane: Lane,
        patience: &mut Option<Instant>,
    ) -> Result<Lease<'_>, Unavailable> {
        let count = self.slots.len();
        let mut first = slot;
        loop {
            let mut why = Unavailable::NobodyListens(libc::ENOENT);
            for step in 0..count {
                let slot = (first + step) % count;
                match self.connect_to(slot, lane, None) {
                    Ok(connection) => return Ok(self.lease_of(slot, lane, connection, true)),
                    Err(failure) => why = worse(why, failure)?,
                }
            }
            let now = Instant::now();
            let until = *patience.get_or_insert_with(|| now + self.settings.connect_timeout);
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return Err(why);
            }
            first = self.choose();
            if why == Unavailable::QueueFull {
                // The kernel knows when there is a place.
                match self.connect_to(first, lane, Some(left.min(IN_QUEUE))) {
                    Ok(connection) => return Ok(self.lease_of(first, lane, connection, true)),
                    Err(Unavailable::QueueFull) => {}
                    Err(Unavailable::NobodyListens(_)) => pause(left.min(LOOK_AGAIN)),
                    Err(failed) => return Err(failed),
                }
            } else {
                pause(left.min(LOOK_AGAIN));
            }
        }
    }

    /// Whether the time that a request may wait for a worker is over; it begins when this is asked
    /// first.
    #[cold]
    pub fn is_over(&self, patience: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        now >= *patience.get_or_insert_with(|| now + self.settings.connect_timeout)
    }

    fn connect_to(
        &self,
        slot: usize,
        lane: Lane,
        wait: Option<Duration>,
    ) -> Result<Connection, Unavailable> {
        let options = Options {
            write_timeout: self.settings.socket_timeout,
            read_timeout: match lane {
                Lane::Wsgi => self.settings.socket_timeout,
                Lane::Asgi => self.settings.socket_timeout.min(WATCH_AFTER),
            },
            send_buffer: self.settings.send_buffer,
            receive_buffer: self.settings.receive_buffer,
        };
        let address = match &self.slots[slot].way {
            Way::Socket(Some(address)) => address,
            Way::Socket(None) => return Err(Unavailable::Failed(libc::ENAMETOOLONG)),
            Way::Function(connector) => {
                let socket = connector().ok_or(Unavailable::NoLoop)?;
                return Connection::adopt(socket, &options).map_err(Unavailable::Failed);
            }
        };
        Connection::connect(address, &options, wait).map_err(|errno| match errno {
            libc::EAGAIN => Unavailable::QueueFull,
            libc::ECONNREFUSED | libc::ENOENT => Unavailable::NobodyListens(errno),
            _ => Unavailable::Failed(errno),
        })
    }
}

/// Which of two failures to report; a full queue is the one that ends by waiting.
fn worse(before: Unavailable, now: Unavailable) -> Result<Unavailable, Unavailable> {
    match (before, now) {
        (_, Unavailable::Failed(_) | Unavailable::NoLoop) => Err(now),
        (Unavailable::QueueFull, _) => Ok(before),
        _ => Ok(now),
    }
}

/// Nothing tells when a listener comes.
fn pause(duration: Duration) {
    wait([], duration);
}

impl Lease<'_> {
    /// The connection.
    #[inline]
    pub fn connection(&self) -> &Connection {
        // Only what consumes the lease takes it.
        self.connection
            .as_ref()
            .expect("a lease has its connection")
    }

    /// Whether it has just been made.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Its slot.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Takes the connection out of the pools for good.
    pub fn into_connection(mut self) -> Connection {
        // As in `connection`.
        self.connection.take().expect("a lease has its connection")
    }

    /// The connection can serve another request; `load` is what the worker said of itself.
    #[inline]
    pub fn give_back(mut self, load: u16) {
        if let Some(connection) = self.connection.take() {
            let slot = &self.pools.slots[self.slot];
            if self.pools.slots.len() > 1 {
                slot.hint.store(u32::from(load), Ordering::Relaxed);
            }
            slot.idle()[self.lane as usize].push(connection);
        }
    }
}

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.pools.slots.len() > 1 {
            self.pools.slots[self.slot]
                .running
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static RANDOM: Cell<u32> = const { Cell::new(0) };
}

/// A number that differs from thread to thread and from call to call (xorshift).
fn random() -> u32 {
    RANDOM.with(|state| {
        let mut x = state.get();
        if x == 0 {
            // Where the thread's memory lies is as good as any.
            let place = core::ptr::from_ref(state) as usize >> 4;
            x = (place as u32).wrapping_mul(0x9e37_79b9) | 1;
        }
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        state.set(x);
        x
    })
}
