//! The keeper: the one thread of a child process that carries the bytes of all parked tunnels.
//!
//! It is started with the first of them, and ended by a clean-up of the child's pool. It never
//! blocks but in `epoll_wait`.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::machine::Buffer;
use super::parked::{Interest, Parked, Step};
use super::{GRACE, LARGEST, LOOK, is_stopping};
use crate::exchange::Level;
use crate::httpd::apache::suspended::Spare;
use crate::httpd::apache::thread::Thread;
use crate::httpd::apache::{Pool, Server};
use crate::httpd::sys::boundary::{Place as LogPlace, guard};
use crate::httpd::sys::{self, apr_status_t};
use crate::messages::TUNNEL_NO_KEEPER;

/// Events taken at once.
const EVENTS: usize = 128;
/// How soon a thread of the MPM is looked at again that has not gone on.
const SOON: Duration = Duration::from_millis(1);
/// And when it takes its time.
const LATER: Duration = Duration::from_millis(50);
/// Deeper than anything that httpd's filters and loggers do.
const STACK: usize = 512 * 1024;

/// What other threads know of it.
struct Shared {
    /// Tunnels that it is to take.
    queue: Mutex<Vec<Parked>>,
    /// An eventfd: there is something in the queue, or it is to end.
    wake: OwnedFd,
    epoll: OwnedFd,
    ends: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The keeper of this child process.
static KEEPER: OnceLock<Option<Shared>> = OnceLock::new();

impl Shared {
    fn new() -> io::Result<Shared> {
        // SAFETY: no pointers; new descriptors that nobody else knows become owned.
        let (wake, epoll) = unsafe {
            let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
            let wake = owned(libc::eventfd(0, flags))?;
            (wake, owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?)
        };
        control(&epoll, libc::EPOLL_CTL_ADD, wake.as_raw_fd(), IN, WAKE)?;
        Ok(Shared {
            queue: Mutex::default(),
            wake,
            epoll,
            ends: AtomicBool::new(false),
            thread: Mutex::default(),
        })
    }

    fn wake(&self) {
        let one = 1_u64;
        // SAFETY: reads eight bytes. It fails only if the counter is full, and then it wakes anyway.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

/// # Safety
/// `fd` is a descriptor that nobody owns, or -1 for a system call that failed.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts the keeper of this process unless it runs; whether it does. Any thread, after the fork.
pub fn start(server: Server<'_>) -> bool {
    let keeper = KEEPER.get_or_init(|| match Shared::new() {
        Ok(shared) => Some(shared),
        Err(error) => {
            complain(server, &error);
            None
        }
    });
    let Some(keeper) = keeper else {
        return false;
    };
    let mut thread = keeper.thread.lock().unwrap_or_else(PoisonError::into_inner);
    if keeper.ends.load(Ordering::Acquire) {
        return false;
    }
    if thread.is_none() {
        match without_signals(|| {
            let builder = std::thread::Builder::new();
            let builder = builder.name("rwsgi-tunnels".to_owned()).stack_size(STACK);
            builder.spawn(move || run(keeper))
        }) {
            Ok(handle) => *thread = Some(handle),
            Err(error) => complain(server, &error),
        }
    }
    thread.is_some()
}

#[cold]
fn complain(server: Server<'_>, error: &io::Error) {
    let line = format!(
        "{TUNNEL_NO_KEEPER}the thread that carries WebSockets cannot be started ({error}); each of \
         them takes a thread of httpd's"
    );
    server.log(Level::Warning, line.as_bytes());
}

/// Calls `body` with all signals blocked, which a new thread inherits: they are the MPM's business.
fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: sets of signals on the stack.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = body();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        result
    }
}

/// Gives a tunnel to the keeper. Never blocks for long.
pub fn take(parked: Parked) {
    if let Some(Some(keeper)) = KEEPER.get() {
        let mut queue = keeper.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(parked);
        drop(queue);
        keeper.wake();
    }
}

/// To be called when a child process begins: the keeper ends with the process.
pub fn prepare(pool: Pool<'_>) {
    // SAFETY: the function may be called at any time with any data.
    unsafe { pool.on_clear(ptr::null_mut(), stop) };
}

/// A clean-up of the child's pool: the threads of the MPM have ended.
unsafe extern "C" fn stop(_: *mut c_void) -> apr_status_t {
    guard(LogPlace::Server(ptr::null_mut()), sys::APR_SUCCESS, || {
        // With prefork a signal handler may be running here, but then there is no keeper.
        if let Some(Some(keeper)) = KEEPER.get() {
            let mut thread = keeper.thread.lock().unwrap_or_else(PoisonError::into_inner);
            keeper.ends.store(true, Ordering::Release);
            let running = thread.take();
            drop(thread);
            keeper.wake();
            if let Some(running) = running {
                let _ = running.join();
            }
        }
        sys::APR_SUCCESS
    })
}

fn run(shared: &Shared) {
    let mut keeper = Keeper {
        shared,
        thread: Thread::adopt(),
        places: Vec::new(),
        free: Vec::new(),
        newcomers: Vec::new(),
        again: VecDeque::new(),
        deadlines: BTreeSet::new(),
        leaving: Vec::new(),
        buffer: Buffer::new(LARGEST),
        spare: Spare::new(),
        stop_at: None,
        stopped: false,
    };
    // A bug costs the tunnel that it was about, which is then in no place any more.
    while guard(LogPlace::Server(ptr::null_mut()), true, || keeper.serve()) {}
    guard(LogPlace::Server(ptr::null_mut()), (), || keeper.end());
}

const IN: u32 = libc::EPOLLIN as u32;
/// The data of the eventfd.
const WAKE: u64 = u64::MAX;

/// A place for a tunnel.
#[derive(Default)]
struct Place {
    /// Tells late events for an earlier tunnel apart.
    generation: u32,
    parked: Option<Parked>,
    /// The sockets, as they are in the epoll set.
    sockets: (RawFd, RawFd),
    /// What it waits for.
    interest: Interest,
}

/// Which socket of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    User = 0,
    Worker = 1,
}

struct Keeper<'k> {
    shared: &'k Shared,
    /// This thread, for httpd's modules.
    thread: Option<Thread>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Those that the MPM has not quite let go of.
    newcomers: Vec<Parked>,
    /// Those that have more to do.
    again: VecDeque<u32>,
    deadlines: BTreeSet<(Instant, u32)>,
    /// Those that are over, but for a thread of the MPM that may not have gone on.
    leaving: Vec<Parked>,
    buffer: Buffer,
    spare: Spare,
    /// When tunnels end because the process is stopping.
    stop_at: Option<Instant>,
    /// They have been told to.
    stopped: bool,
}

impl Keeper<'_> {
    /// Waits and does what there is to do; `false` when it is to end.
    fn serve(&mut self) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let count = self.wait(&mut events);
        if self.shared.ends.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        // Before the queue is looked into: what comes after that wakes it again.
        if events[..count].iter().any(|event| event.u64 == WAKE) {
            self.quiet();
        }
        self.welcome(now);
        self.part();
        for event in &events[..count] {
            let (data, what) = (event.u64, event.events);
            if data == WAKE {
                continue;
            }
            let (index, side, generation) = decode(data);
            let place = self.places.get(index as usize);
            match side {
                _ if place.is_none_or(|place| place.generation != generation) => {}
                Side::User => self.step(index, what, 0, now),
                Side::Worker => self.step(index, 0, what, now),
            }
        }
        for _ in 0..self.again.len() {
            if let Some(index) = self.again.pop_front() {
                self.step(index, IN, IN, now);
            }
        }
        while let Some(&(until, index)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.remove(&(until, index));
            self.places[index as usize].interest.until = None;
            self.step(index, 0, 0, now);
        }
        self.look(now);
        true
    }

    /// Waits for events, at most as long as there is nothing else to do.
    fn wait(&self, events: &mut [libc::epoll_event]) -> usize {
        let mut timeout = if self.is_idle() { Duration::MAX } else { LOOK };
        if let Some((until, _)) = self.deadlines.first() {
            timeout = timeout.min(until.saturating_duration_since(Instant::now()));
        }
        if !self.leaving.is_empty() {
            timeout = timeout.min(LATER);
        }
        if !self.newcomers.is_empty() {
            timeout = timeout.min(SOON);
        }
        if !self.again.is_empty() {
            timeout = Duration::ZERO;
        }
        let timeout = match timeout {
            Duration::MAX => -1,
            // Not a little too early.
            _ => i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
        };
        let epoll = self.shared.epoll.as_raw_fd();
        // SAFETY: room for that many events. What fails is tried again.
        let count =
            unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, timeout) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Takes back what wakes it.
    fn quiet(&self) {
        let mut count = 0_u64;
        // SAFETY: room for eight bytes.
        unsafe { libc::read(self.shared.wake.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// Takes over the tunnels that the MPM has let go of.
    fn welcome(&mut self, now: Instant) {
        {
            let queue = &self.shared.queue;
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            self.newcomers.append(&mut queue);
        }
        let mut at = 0;
        while at < self.newcomers.len() {
            if self.newcomers[at].has_let_go() {
                let parked = self.newcomers.swap_remove(at);
                self.settle(parked, now);
            } else {
                at += 1;
            }
        }
    }

    fn settle(&mut self, mut parked: Parked, now: Instant) {
        parked.take_over(self.thread);
        if self.stopped {
            parked.stop();
        }
        let sockets = parked.sockets();
        if sockets.0 < 0 {
            self.leave(parked);
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.sockets = sockets;
        place.parked = Some(parked);
        self.step(index, IN, IN, now);
    }

    /// Lets the tunnel do what it can after these events.
    fn step(&mut self, index: u32, user: u32, worker: u32, now: Instant) {
        // It is in nobody's hands while it is at work: what panics is not used again.
        let Some(mut parked) = self.places[index as usize].parked.take() else {
            self.vacate(index);
            return;
        };
        parked.lend(&mut self.spare);
        let step = parked.step(&mut self.buffer, user, worker, now);
        parked.take_back(&mut self.spare);
        let watched = match step {
            Step::Wait(interest) => self.watch(index, interest).is_ok(),
            Step::Again => {
                self.again.push_back(index);
                true
            }
            Step::Over => false,
        };
        if watched {
            parked.release();
            self.places[index as usize].parked = Some(parked);
        } else {
            // It is over, or the kernel has no memory to watch it.
            self.vacate(index);
            self.leave(parked);
        }
    }

    /// The tunnel is over: its connection is freed, now or later.
    fn leave(&mut self, parked: Parked) {
        parked.shut_down();
        self.leaving.push(parked);
        self.part();
    }

    /// Makes the epoll set fit what a tunnel waits for.
    fn watch(&mut self, index: u32, interest: Interest) -> io::Result<()> {
        let place = &mut self.places[index as usize];
        let before = core::mem::replace(&mut place.interest, interest);
        if before.until != interest.until {
            if let Some(until) = before.until {
                self.deadlines.remove(&(until, index));
            }
            if let Some(until) = interest.until {
                self.deadlines.insert((until, index));
            }
        }
        for (side, fd, before, after) in [
            (Side::User, place.sockets.0, before.user, interest.user),
            (
                Side::Worker,
                place.sockets.1,
                before.worker,
                interest.worker,
            ),
        ] {
            let operation = match (before, after) {
                _ if before == after => continue,
                (0, _) => libc::EPOLL_CTL_ADD,
                // One that has gone would be reported again and again.
                (_, 0) => libc::EPOLL_CTL_DEL,
                _ => libc::EPOLL_CTL_MOD,
            };
            let data = encode(index, side, place.generation);
            control(&self.shared.epoll, operation, fd, after, data)?;
        }
        Ok(())
    }

    /// Nothing more is heard of this place. Its sockets are still open.
    fn vacate(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        let Interest {
            user,
            worker,
            until,
        } = core::mem::take(&mut place.interest);
        if let Some(until) = until {
            self.deadlines.remove(&(until, index));
        }
        for (fd, events) in [(place.sockets.0, user), (place.sockets.1, worker)] {
            if events != 0 {
                let _ = control(&self.shared.epoll, libc::EPOLL_CTL_DEL, fd, 0, 0);
            }
        }
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        self.again.retain(|&other| other != index);
    }

    /// Frees the connections of those that are over.
    fn part(&mut self) {
        let mut at = 0;
        while at < self.leaving.len() {
            if self.leaving[at].may_be_freed() {
                let parked = self.leaving.swap_remove(at);
                // SAFETY: as has just been asked.
                unsafe { parked.free() };
            } else {
                at += 1;
            }
        }
    }

    /// Whether the process is stopping, and has been for long enough.
    fn look(&mut self, now: Instant) {
        if self.stopped || self.is_idle() || !is_stopping() {
            return;
        }
        if now < *self.stop_at.get_or_insert_with(|| now + GRACE) {
            return;
        }
        self.stopped = true;
        for index in 0..self.places.len() as u32 {
            if let Some(parked) = &mut self.places[index as usize].parked {
                parked.stop();
                self.step(index, 0, 0, now);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// The process ends now: what is open is logged and closed.
    fn end(&mut self) {
        let queue = &self.shared.queue;
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.leaving.append(&mut queue);
        drop(queue);
        self.leaving.append(&mut self.newcomers);
        let places = self.places.iter_mut();
        self.leaving
            .extend(places.filter_map(|place| place.parked.take()));
        self.part();
    }
}

fn encode(index: u32, side: Side, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index) << 1 | side as u64
}

fn decode(data: u64) -> (u32, Side, u32) {
    let side = if data & 1 == 0 {
        Side::User
    } else {
        Side::Worker
    };
    ((data as u32) >> 1, side, (data >> 32) as u32)
}

fn control(epoll: &OwnedFd, operation: i32, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: reads the event.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_know_their_place() {
        for (index, generation) in [(0, 0), (1, 7), (0x7fff_fffe, u32::MAX - 1)] {
            for side in [Side::User, Side::Worker] {
                let data = encode(index, side, generation);
                assert!(data != WAKE);
                let (i, s, g) = decode(data);
                assert!((i, g) == (index, generation) && s == side);
            }
        }
    }
}
