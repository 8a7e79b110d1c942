//! The event loops of this process: one for each application group that serves ASGI.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;
use super::house::House;
use crate::exchange::Level;
use crate::messages;
use crate::python::runtime::Runtime;

/// By the slot of their interpreter.
static LOOPS: Mutex<Vec<(usize, &'static EventLoop)>> = Mutex::new(Vec::new());

/// There is no event loop for a group; why has been logged.
#[derive(Clone, Copy, Debug)]
pub struct NoLoop;

/// The loop of an application group; made and started if there is none. The calling thread is not
/// attached.
///
/// # Errors
/// There is none; why has been logged.
pub fn of(
    runtime: &'static Runtime,
    group: &[u8],
    house: &'static dyn House,
) -> Result<&'static EventLoop, NoLoop> {
    let interpreter = runtime.interpreter(group).map_err(|_| NoLoop)?;
    let mut loops = LOOPS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = loops
        .iter()
        .find(|(slot, _)| *slot == interpreter.slot())
        .map(|(_, event_loop)| *event_loop);
    if let Some(known) = known {
        return if known.has_ended() {
            Err(NoLoop)
        } else {
            Ok(known)
        };
    }
    static FORKS: Once = Once::new();
    FORKS.call_once(|| {
        // SAFETY: a function that only closes descriptors.
        unsafe { libc::pthread_atfork(None, None, Some(in_forked_child)) };
    });
    match EventLoop::start(interpreter, house) {
        Ok(event_loop) => {
            loops.push((interpreter.slot(), event_loop));
            if DRAINS.load(Ordering::Acquire) {
                event_loop.drain();
            }
            Ok(event_loop)
        }
        Err(error) => {
            let line = format!(
                "{}no event loop can be started: {error}",
                messages::ASGI_LOOP_FAILED
            );
            house.log(Level::Error, line.as_bytes());
            Err(NoLoop)
        }
    }
}

/// A new connection to the loop of an application group: the client's end.
///
/// # Errors
/// There is none; why has been logged.
pub fn connect(
    runtime: &'static Runtime,
    group: &[u8],
    house: &'static dyn House,
) -> Result<OwnedFd, NoLoop> {
    let event_loop = of(runtime, group, house)?;
    let mut pair = [-1; 2];
    // SAFETY: two descriptors are filled in, which are ours.
    let (ours, theirs) = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        if libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) != 0 {
            let line = format!(
                "{}no connection to the event loop can be made: {}",
                messages::ASGI_LOOP_FAILED,
                std::io::Error::last_os_error()
            );
            house.log(Level::Error, line.as_bytes());
            return Err(NoLoop);
        }
        (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1]))
    };
    event_loop.adopt(theirs, Vec::new());
    Ok(ours)
}

/// The same as a bare number, for the C ABI.
pub fn connect_raw(runtime: &'static Runtime, group: &[u8], house: &'static dyn House) -> i32 {
    connect(runtime, group, house).map_or(-1, OwnedFd::into_raw_fd)
}

/// All of them. A signal handler that ends the process may come here while its own thread has the
/// lock: it finds none then.
fn all() -> Vec<&'static EventLoop> {
    let loops = match LOOPS.try_lock() {
        Ok(loops) => loops,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Vec::new(),
    };
    loops.iter().map(|(_, event_loop)| *event_loop).collect()
}

/// Whether loops have been told to end: one that begins then ends as well.
static DRAINS: AtomicBool = AtomicBool::new(false);

/// Has all loops end what they do. Any thread.
pub fn drain() {
    DRAINS.store(true, Ordering::Release);
    for event_loop in all() {
        event_loop.drain();
    }
}

/// The same, without waiting for what is in hand. Any thread.
pub fn hurry() {
    DRAINS.store(true, Ordering::Release);
    for event_loop in all() {
        event_loop.hurry();
    }
}

/// Waits until all loops have ended, which have been told to, at most for `longest`. The calling
/// thread is not attached.
pub fn wait_for_end(longest: Duration) {
    let until = Instant::now() + longest;
    for event_loop in all() {
        event_loop.wait_for_end(until.saturating_duration_since(Instant::now()));
    }
}

/// A loop that has something in hand and has not gone round for so long; told of once.
pub fn stuck(longest: Duration) -> Option<&'static EventLoop> {
    let now = crate::daemon::board::now_ms();
    let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    all().into_iter().find(|event_loop| {
        let beat = event_loop.beat_ms.load(Ordering::Relaxed);
        event_loop.active.load(Ordering::Relaxed) > 0
            && now.saturating_sub(beat) > longest
            && event_loop.told_stuck.swap(beat, Ordering::Relaxed) != beat
    })
}

/// Runs in every process that is forked off this one.
extern "C" fn in_forked_child() {
    // Somebody may have held the lock when the process was forked: then nothing can be done.
    if let Ok(loops) = LOOPS.try_lock() {
        for (_, event_loop) in loops.iter() {
            event_loop.close_in_forked_child();
        }
    }
    super::link::close_in_forked_child();
}
